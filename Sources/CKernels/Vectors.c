// SPDX-License-Identifier: Apache-2.0

// Vector kernels in portable C, compiled once for each instruction set. Sums run in 16 lanes, which are then added as
// a tree: the order is the same whether the compiler puts the lanes into one register, two, four or none.

#include "Internal.h"

#include <math.h>

#pragma STDC FP_CONTRACT OFF

#include "AttentionRows.h"

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
