// SPDX-License-Identifier: Apache-2.0

// Vector kernels in portable C, compiled once for each instruction set. Sums run in 16 lanes, which are then added as
// a tree: the order is the same whether the compiler puts the lanes into one register, two, four or none.

#include "Internal.h"

#include <math.h>

#pragma STDC FP_CONTRACT OFF

#include "Exponential.h"

float ck_exp(float x) { return exp_negative(x); }

CK_INLINE void rms_norm(const float *x, const float *weight, float epsilon, size_t count, float *destination) {
    float lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            lanes[lane] = fmaf(x[i + lane], x[i + lane], lanes[lane]);
        }
    }
    for (size_t lane = 0; i + lane < count; lane++) {
        lanes[lane] = fmaf(x[i + lane], x[i + lane], lanes[lane]);
    }
    const float inverse = 1.0f / sqrtf(tree_sum(lanes) / (float)count + epsilon);
    for (size_t j = 0; j < count; j++) {
        destination[j] = weight[j] * (x[j] * inverse);
    }
}

CK_INLINE void add_rms_norm(const float *residual, const float *update, const float *weight, float epsilon, size_t count,
                           float *sum, float *destination) {
    for (size_t i = 0; i < count; i++) {
        sum[i] = residual[i] + update[i];
    }
    // The row is in the first-level cache by now.
    rms_norm(sum, weight, epsilon, count, destination);
}

CK_INLINE void layer_norm(const float *x, const float *weight, const float *bias, float epsilon, size_t count,
                          float *destination) {
    float lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            lanes[lane] += x[i + lane];
        }
    }
    for (size_t lane = 0; i + lane < count; lane++) {
        lanes[lane] += x[i + lane];
    }
    const float mean = tree_sum(lanes) / (float)count;
    float squares[LANES] = {0};
    i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            const float difference = x[i + lane] - mean;
            squares[lane] = fmaf(difference, difference, squares[lane]);
        }
    }
    for (size_t lane = 0; i + lane < count; lane++) {
        const float difference = x[i + lane] - mean;
        squares[lane] = fmaf(difference, difference, squares[lane]);
    }
    const float inverse = 1.0f / sqrtf(tree_sum(squares) / (float)count + epsilon);
    for (size_t j = 0; j < count; j++) {
        destination[j] = weight[j] * ((x[j] - mean) * inverse) + bias[j];
    }
}

CK_INLINE void add_layer_norm(const float *residual, const float *update, const float *weight, const float *bias,
                              float epsilon, size_t count, float *sum, float *destination) {
    for (size_t i = 0; i < count; i++) {
        sum[i] = residual[i] + update[i];
    }
    // The row is in the first-level cache by now.
    layer_norm(sum, weight, bias, epsilon, count, destination);
}

CK_INLINE float softmax(float *x, size_t count) {
    if (count == 0) {
        return 0;
    }
    float lanes[LANES];
    float16 most = (float16){0} - INFINITY;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        float16 part;
        memcpy(&part, x + i, sizeof part);
        // False where an element is not a number, which then shows in the sum.
        const mask16 is_more = part > most;
        most = (float16)(((mask16)part & is_more) | ((mask16)most & ~is_more));
    }
    memcpy(lanes, &most, sizeof lanes);
    for (size_t lane = 0; i + lane < count; lane++) {
        lanes[lane] = x[i + lane] > lanes[lane] ? x[i + lane] : lanes[lane];
    }
    for (size_t half = LANES / 2; half > 0; half /= 2) {
        for (size_t lane = 0; lane < half; lane++) {
            lanes[lane] = lanes[lane + half] > lanes[lane] ? lanes[lane + half] : lanes[lane];
        }
    }
    const float highest = lanes[0];
    float16 sums = {0};
    i = 0;
    for (; i + LANES <= count; i += LANES) {
        float16 part;
        memcpy(&part, x + i, sizeof part);
        part = exp_negative16(part - highest);
        memcpy(x + i, &part, sizeof part);
        sums += part;
    }
    if (i < count) {
        float16 part = (float16){0} + highest;
        memcpy(&part, x + i, (count - i) * sizeof(float));
        part = keep_first16(exp_negative16(part - highest), count - i);
        memcpy(x + i, &part, (count - i) * sizeof(float));
        sums += part;
    }
    memcpy(lanes, &sums, sizeof lanes);
    const float sum = tree_sum(lanes);
    for (size_t j = 0; j < count; j++) {
        x[j] = x[j] / sum;
    }
    return 1.0f / sum;
}

/// Element `index` of a row of keys or values; `bf16` is a constant wherever this is called.
CK_INLINE float element(const void *row, size_t index, const int bf16) {
    if (bf16) {
        uint16_t bits;
        memcpy(&bits, (const char *)row + index * sizeof bits, sizeof bits);
        return ck_bf16_to_f32(bits);
    }
    return ((const float *)row)[index];
}

CK_INLINE float dot(const float *a, const void *b, size_t width, const int bf16) {
    float lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= width; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            lanes[lane] = fmaf(a[i + lane], element(b, i + lane, bf16), lanes[lane]);
        }
    }
    for (size_t lane = 0; i + lane < width; lane++) {
        lanes[lane] = fmaf(a[i + lane], element(b, i + lane, bf16), lanes[lane]);
    }
    return tree_sum(lanes);
}

/// Prefetches a page ahead, which the processor does not do by itself.
CK_INLINE void ahead(const void *row, size_t bytes) {
    for (size_t offset = 0; offset < bytes; offset += 64) {
        __builtin_prefetch((const char *)row + offset + 4096);
    }
}

CK_INLINE float16 load16(const void *row, size_t index, const int bf16) {
    if (bf16) {
        halves16 halves;
        memcpy(&halves, (const char *)row + index * 2, sizeof halves);
        return (float16)(__builtin_convertvector(halves, bits16) << 16);
    }
    float16 values;
    memcpy(&values, (const float *)row + index, sizeof values);
    return values;
}

/// The first steps of tree_sum for one key.
CK_INLINE float4 fold(float16 lanes) {
    const float8 eight = __builtin_shufflevector(lanes, lanes, 0, 1, 2, 3, 4, 5, 6, 7)
        + __builtin_shufflevector(lanes, lanes, 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
}

/// Four keys' products with the query at once, whose last additions then share registers. The width is a multiple of
/// LANES; the sums are those of `dot`.
CK_INLINE void four_dots(const float *query, const char *keys, size_t stride_bytes, size_t width, float sums[4],
                         const int bf16) {
    float16 lanes[4] = {{0}, {0}, {0}, {0}};
    for (size_t i = 0; i < width; i += LANES) {
        const float16 part = load16(query, i, 0);
        for (size_t key = 0; key < 4; key++) {
            lanes[key] = __builtin_elementwise_fma(part, load16(keys + key * stride_bytes, i, bf16), lanes[key]);
        }
    }
    const float4 a = fold(lanes[0]), b = fold(lanes[1]), c = fold(lanes[2]), d = fold(lanes[3]);
    const float4 low_ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), high_ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const float4 low_cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), high_cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    const float4 zero = __builtin_shufflevector(low_ab, low_cd, 0, 1, 4, 5);
    const float4 one = __builtin_shufflevector(low_ab, low_cd, 2, 3, 6, 7);
    const float4 two = __builtin_shufflevector(high_ab, high_cd, 0, 1, 4, 5);
    const float4 three = __builtin_shufflevector(high_ab, high_cd, 2, 3, 6, 7);
    const float4 all = (zero + two) + (one + three);
    memcpy(sums, &all, sizeof all);
}

CK_INLINE void scores_of(const float *query, const void *keys, size_t key_stride, size_t width, size_t count,
                         const float *bias, float *scores, const int bf16) {
    const size_t size = bf16 ? 2 : 4;
    size_t t = 0;
    for (; width % LANES == 0 && t + 4 <= count; t += 4) {
        const char *key = (const char *)keys + t * key_stride * size;
        float sums[4];
        for (size_t index = 0; index < 4; index++) {
            ahead(key + index * key_stride * size, width * size);
        }
        four_dots(query, key, key_stride * size, width, sums, bf16);
        for (size_t index = 0; index < 4; index++) {
            scores[t + index] = bias ? sums[index] + bias[t + index] : sums[index];
        }
    }
    for (; t < count; t++) {
        const char *key = (const char *)keys + t * key_stride * size;
        ahead(key, width * size);
        const float score = dot(query, key, width, bf16);
        scores[t] = bias ? score + bias[t] : score;
    }
}

CK_INLINE void attention_scores(const float *query, const void *keys, int type, size_t key_stride, size_t width,
                                size_t count, const float *bias, float *scores) {
    if (type == CK_TYPE_BF16) {
        scores_of(query, keys, key_stride, width, count, bias, scores, 1);
    } else {
        scores_of(query, keys, key_stride, width, count, bias, scores, 0);
    }
}

/// `block` elements of the context, at most 64, whose sums stay in registers.
CK_INLINE void context_block(const float *weights, const char *values, size_t stride_bytes, size_t count,
                             float *context, const size_t block, const int bf16) {
    float sums[64];
    memcpy(sums, context, block * sizeof(float));
    for (size_t t = 0; t < count; t++) {
        const char *value = values + t * stride_bytes;
        ahead(value, block * (bf16 ? 2 : 4));
        for (size_t lane = 0; lane < block; lane++) {
            sums[lane] = fmaf(weights[t], element(value, lane, bf16), sums[lane]);
        }
    }
    memcpy(context, sums, block * sizeof(float));
}

CK_INLINE void context_of(const float *weights, const void *values, size_t value_stride, size_t width, size_t count,
                          float *context, const int bf16) {
    const size_t size = bf16 ? 2 : 4;
    const char *bytes = values;
    const size_t stride = value_stride * size;
    size_t d = 0;
    for (; d + 64 <= width; d += 64) {
        context_block(weights, bytes + d * size, stride, count, context + d, 64, bf16);
    }
    for (; d + 32 <= width; d += 32) {
        context_block(weights, bytes + d * size, stride, count, context + d, 32, bf16);
    }
    for (; d < width; d++) {
        float sum = context[d];
        for (size_t t = 0; t < count; t++) {
            sum = fmaf(weights[t], element(bytes + t * stride, d, bf16), sum);
        }
        context[d] = sum;
    }
}

CK_INLINE void attention_context(const float *weights, const void *values, int type, size_t value_stride, size_t width,
                                 size_t count, float *context) {
    if (type == CK_TYPE_BF16) {
        context_of(weights, values, value_stride, width, count, context, 1);
    } else {
        context_of(weights, values, value_stride, width, count, context, 0);
    }
}

/// x / (1 + exp(-z)), by an exponential of a negative number whatever the sign of z, so that neither end overflows or
/// loses digits.
CK_INLINE float16 times_logistic16(float16 x, float16 z) {
    const mask16 is_negative = z < 0.0f;
    const float16 power = exp_negative16((float16)(((mask16)z & ~is_negative) | ((mask16)-z & is_negative)) * -1.0f);
    const float16 one = (float16){0} + 1.0f;
    const float16 numerator = (float16)(((mask16)power & is_negative) | ((mask16)one & ~is_negative));
    return x * (numerator / (one + power));
}

/// gelu by its tanh approximation, silu or quick gelu, which all are x / (1 + exp(-z)):
/// 0.5 (1 + tanh(a)) = 1 / (1 + exp(-2 a)).
CK_INLINE float16 logistic_activation16(int activation, float16 x) {
    switch (activation) {
    case CK_ACTIVATION_GELU_TANH: return times_logistic16(x, 1.595769122f * (x + 0.044715f * (x * x * x)));
    case CK_ACTIVATION_QUICK_GELU: return times_logistic16(x, 1.702f * x);
    default: return times_logistic16(x, x);
    }
}

CK_INLINE void logistic_activations(int activation, float *x, const float *factor, size_t count) {
    for (size_t i = 0; i < count; i += LANES) {
        const size_t lanes = count - i < LANES ? count - i : LANES;
        float16 part = {0};
        float16 scale = {0};
        memcpy(&part, x + i, lanes * sizeof(float));
        part = logistic_activation16(activation, part);
        if (factor != NULL) {
            memcpy(&scale, factor + i, lanes * sizeof(float));
            part *= scale;
        }
        memcpy(x + i, &part, lanes * sizeof(float));
    }
}

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx2,fma")))

static AVX2 void rms_norm_avx2(const float *x, const float *w, float e, size_t n, float *d) { rms_norm(x, w, e, n, d); }
static AVX2 void add_rms_norm_avx2(const float *r, const float *u, const float *w, float e, size_t n, float *s, float *d) {
    add_rms_norm(r, u, w, e, n, s, d);
}
static AVX2 void layer_norm_avx2(const float *x, const float *w, const float *b, float e, size_t n, float *d) {
    layer_norm(x, w, b, e, n, d);
}
static AVX2 void add_layer_norm_avx2(const float *r, const float *u, const float *w, const float *b, float e, size_t n,
                                     float *s, float *d) {
    add_layer_norm(r, u, w, b, e, n, s, d);
}
static AVX2 float softmax_avx2(float *x, size_t n) { return softmax(x, n); }
static AVX2 void logistic_avx2(int a, float *x, const float *f, size_t n) { logistic_activations(a, x, f, n); }
static AVX512 void logistic_avx512(int a, float *x, const float *f, size_t n) { logistic_activations(a, x, f, n); }
static AVX2 void scores_avx2(const float *q, const void *k, int y, size_t s, size_t w, size_t n, const float *b, float *d) {
    attention_scores(q, k, y, s, w, n, b, d);
}
static AVX512 void scores_avx512(const float *q, const void *k, int y, size_t s, size_t w, size_t n, const float *b,
                                 float *d) {
    attention_scores(q, k, y, s, w, n, b, d);
}
static AVX2 void context_avx2(const float *p, const void *v, int y, size_t s, size_t w, size_t n, float *d) {
    attention_context(p, v, y, s, w, n, d);
}
#endif

void ck_rms_norm(int level, const float *x, const float *weight, float epsilon, size_t count, float *destination) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        rms_norm_avx2(x, weight, epsilon, count, destination);
        return;
    }
#endif
    (void)level;
    rms_norm(x, weight, epsilon, count, destination);
}

void ck_add_rms_norm(int level, const float *residual, const float *update, const float *weight, float epsilon,
                     size_t count, float *sum, float *destination) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        add_rms_norm_avx2(residual, update, weight, epsilon, count, sum, destination);
        return;
    }
#endif
    (void)level;
    add_rms_norm(residual, update, weight, epsilon, count, sum, destination);
}

void ck_layer_norm(int level, const float *x, const float *weight, const float *bias, float epsilon, size_t count,
                   float *destination) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        layer_norm_avx2(x, weight, bias, epsilon, count, destination);
        return;
    }
#endif
    (void)level;
    layer_norm(x, weight, bias, epsilon, count, destination);
}

void ck_add_layer_norm(int level, const float *residual, const float *update, const float *weight, const float *bias,
                       float epsilon, size_t count, float *sum, float *destination) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        add_layer_norm_avx2(residual, update, weight, bias, epsilon, count, sum, destination);
        return;
    }
#endif
    (void)level;
    add_layer_norm(residual, update, weight, bias, epsilon, count, sum, destination);
}

float ck_softmax(int level, float *x, size_t count) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        return softmax_avx2(x, count);
    }
#endif
    (void)level;
    return softmax(x, count);
}

void ck_attention_scores(int level, const float *query, const void *keys, int type, size_t key_stride, size_t width,
                         size_t count, const float *bias, float *scores) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX512) {
        scores_avx512(query, keys, type, key_stride, width, count, bias, scores);
        return;
    }
    if (level >= CK_LEVEL_AVX2) {
        scores_avx2(query, keys, type, key_stride, width, count, bias, scores);
        return;
    }
#endif
    (void)level;
    attention_scores(query, keys, type, key_stride, width, count, bias, scores);
}

void ck_attention_context(int level, const float *weights, const void *values, int type, size_t value_stride,
                          size_t width, size_t count, float *context) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        context_avx2(weights, values, type, value_stride, width, count, context);
        return;
    }
#endif
    (void)level;
    attention_context(weights, values, type, value_stride, width, count, context);
}

void ck_add(const float *a, const float *b, size_t count, float *destination) {
    for (size_t i = 0; i < count; i++) {
        destination[i] = a[i] + b[i];
    }
}

void ck_scale_add(const float *residual, const void *value, float scale, size_t count, float *destination) {
    const char *bytes = value;
    for (size_t i = 0; i < count; i++) {
        float one;
        memcpy(&one, bytes + i * sizeof(float), sizeof one);
        const float product = scale * one;
        destination[i] = residual[i] + product;
    }
}

void ck_scale(const float *value, float scale, size_t count, float *destination) {
    for (size_t i = 0; i < count; i++) {
        destination[i] = scale * value[i];
    }
}

static void logistic(int level, int activation, float *x, const float *factor, size_t count) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX512) {
        logistic_avx512(activation, x, factor, count);
        return;
    }
    if (level >= CK_LEVEL_AVX2) {
        logistic_avx2(activation, x, factor, count);
        return;
    }
#endif
    (void)level;
    logistic_activations(activation, x, factor, count);
}

void ck_activate(int level, int activation, float *x, const float *factor, size_t count) {
    switch (activation) {
    case CK_ACTIVATION_GELU_TANH:
    case CK_ACTIVATION_SILU:
    case CK_ACTIVATION_QUICK_GELU:
        logistic(level, activation, x, factor, count);
        return;
    case CK_ACTIVATION_GELU:
        for (size_t i = 0; i < count; i++) {
            x[i] = x[i] * 0.5f * (1.0f + erff(x[i] * 0.707106781f));
        }
        break;
    case CK_ACTIVATION_TANH:
        for (size_t i = 0; i < count; i++) {
            x[i] = tanhf(x[i]);
        }
        break;
    // Comparisons that are false for NaN keep it, so that the checks for finite values see it.
    case CK_ACTIVATION_RELU:
        for (size_t i = 0; i < count; i++) {
            x[i] = x[i] < 0.0f ? 0.0f : x[i];
        }
        break;
    case CK_ACTIVATION_RELU6:
        for (size_t i = 0; i < count; i++) {
            x[i] = x[i] < 0.0f ? 0.0f : x[i] > 6.0f ? 6.0f : x[i];
        }
        break;
    case CK_ACTIVATION_SQUARED_RELU:
        for (size_t i = 0; i < count; i++) {
            x[i] = x[i] < 0.0f ? 0.0f : x[i] * x[i];
        }
        break;
    default: break;
    }
    if (factor != NULL) {
        for (size_t i = 0; i < count; i++) {
            x[i] *= factor[i];
        }
    }
}
