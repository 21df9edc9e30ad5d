// SPDX-License-Identifier: Apache-2.0

// What training computes besides products: element-wise forward and backward passes in portable C, compiled once for each
// instruction set. Sums that are not products run in float64, in eight lanes that are then added as a tree.

#include "Softmax.h"

CK_INLINE double8 widen8(const float *x) {
    float8 values;
    memcpy(&values, x, sizeof values);
    return __builtin_convertvector(values, double8);
}

/// Sum of a[i] * b[i], and with `c` of that times c[i].
CK_INLINE double dot64(const float *a, const float *b, const float *c, size_t count) {
    double8 lanes = {0};
    size_t i = 0;
    for (; i + DOUBLES <= count; i += DOUBLES) {
        const double8 part = widen8(a + i) * widen8(b + i);
        lanes += c ? part * widen8(c + i) : part;
    }
    for (size_t lane = 0; i + lane < count; lane++) {
        const double part = (double)a[i + lane] * (double)b[i + lane];
        lanes[lane] += c ? part * (double)c[i + lane] : part;
    }
    return tree_sum8(lanes);
}

// MARK: - Norm

CK_INLINE void train_norm(const float *x, const float *weight, float epsilon, size_t count, float *y) {
    const double mean = dot64(x, x, NULL, count) / (double)count;
    const float inverse = (float)(1.0 / sqrt(mean + (double)epsilon));
    for (size_t i = 0; i < count; i++) {
        y[i] = weight[i] * (x[i] * inverse);
    }
}

CK_INLINE void train_norm_backward(const float *x, const float *weight, const float *dy, float epsilon, size_t count,
                                   float *dx, double *dweight) {
    const double mean = dot64(x, x, NULL, count) / (double)count;
    const double inverse = 1.0 / sqrt(mean + (double)epsilon);
    const double along = dot64(weight, dy, x, count) * inverse * inverse * inverse / (double)count;
    const float scale = (float)inverse;
    const float back = (float)along;
    for (size_t i = 0; i < count; i++) {
        const float through = scale * (weight[i] * dy[i]);
        const float length = back * x[i];
        dx[i] += through - length;
    }
    for (size_t i = 0; i < count; i++) {
        dweight[i] += (double)dy[i] * ((double)x[i] * inverse);
    }
}

// MARK: - Activations

CK_INLINE float16 logistic16(float16 z) {
    const mask16 is_negative = z < 0.0f;
    const float16 power = exp_negative16((float16)(((mask16)z & ~is_negative) | ((mask16)-z & is_negative)) * -1.0f);
    const float16 one = (float16){0} + 1.0f;
    const float16 numerator = (float16)(((mask16)power & is_negative) | ((mask16)one & ~is_negative));
    return numerator / (one + power);
}

/// The derivative of gelu's tanh approximation, silu or quick gelu, all of which are x * logistic(u(x)):
/// s + x s (1 - s) u'.
CK_INLINE float16 logistic_slope16(int activation, float16 x) {
    float16 u = x;
    float16 slope = (float16){0} + 1.0f;
    if (activation == CK_ACTIVATION_GELU_TANH) {
        u = 1.595769122f * (x + 0.044715f * (x * x * x));
        slope = 1.595769122f * (1.0f + 0.134145f * (x * x));
    } else if (activation == CK_ACTIVATION_QUICK_GELU) {
        u = 1.702f * x;
        slope = slope * 1.702f;
    }
    const float16 s = logistic16(u);
    return s + (x * s) * ((1.0f - s) * slope);
}

CK_INLINE void logistic_slopes(int activation, const float *z, size_t count, float *slopes) {
    for (size_t i = 0; i < count; i += LANES) {
        const size_t lanes = count - i < LANES ? count - i : LANES;
        float16 part = {0};
        memcpy(&part, z + i, lanes * sizeof(float));
        part = logistic_slope16(activation, part);
        memcpy(slopes + i, &part, lanes * sizeof(float));
    }
}

CK_INLINE void other_slopes(int activation, const float *z, size_t count, float *slopes) {
    for (size_t i = 0; i < count; i++) {
        const float x = z[i];
        float slope = 0;
        switch (activation) {
        case CK_ACTIVATION_RELU: slope = x > 0.0f ? 1.0f : 0.0f; break;
        case CK_ACTIVATION_RELU6: slope = x > 0.0f && x < 6.0f ? 1.0f : 0.0f; break;
        case CK_ACTIVATION_SQUARED_RELU: slope = x > 0.0f ? 2.0f * x : 0.0f; break;
        case CK_ACTIVATION_TANH: {
            const float t = tanhf(x);
            slope = 1.0f - t * t;
            break;
        }
        default: {
            const float density = 0.398942280f * exp_negative(-0.5f * (x * x));
            slope = 0.5f * (1.0f + erff(x * 0.707106781f)) + x * density;
            break;
        }
        }
        slopes[i] = x != x ? x : slope;
    }
}

CK_INLINE void relu_backward(const float *hidden, size_t count, float *gradient) {
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        float16 value, back;
        memcpy(&value, hidden + i, sizeof value);
        memcpy(&back, gradient + i, sizeof back);
        back = (float16)((mask16)back & (value > 0.0f));
        memcpy(gradient + i, &back, sizeof back);
    }
    for (; i < count; i++) {
        gradient[i] = hidden[i] > 0.0f ? gradient[i] : 0.0f;
    }
}

CK_INLINE void times(const float *b, size_t count, float *a) {
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        float16 left, right;
        memcpy(&left, a + i, sizeof left);
        memcpy(&right, b + i, sizeof right);
        left = left * right;
        memcpy(a + i, &left, sizeof left);
    }
    for (; i < count; i++) {
        a[i] = a[i] * b[i];
    }
}

// MARK: - Cross-entropy

double ck_log(double x) { return logarithm(x); }

CK_INLINE void cross_entropy(float *x, size_t count, size_t target, float smoothing, float z, double scale,
                             int gradient, double *loss) {
    const float most = greatest(x, count);
    const double highest = (double)most;
    const double at_target = (double)x[target];
    double8 exponentials = {0};
    double8 logits = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        float16 part;
        memcpy(&part, x + i, sizeof part);
        const float16 powers = exp_negative16(part - most);
        exponentials = add16(exponentials, powers);
        if (smoothing > 0) {
            logits = add16(logits, part);
        }
        if (gradient) {
            memcpy(x + i, &powers, sizeof powers);
        }
    }
    if (i < count) {
        float16 part = (float16){0} + most;
        memcpy(&part, x + i, (count - i) * sizeof(float));
        const float16 powers = keep_first16(exp_negative16(part - most), count - i);
        exponentials = add16(exponentials, powers);
        if (smoothing > 0) {
            logits = add16(logits, keep_first16(part, count - i));
        }
        if (gradient) {
            memcpy(x + i, &powers, (count - i) * sizeof(float));
        }
    }
    const double sum = tree_sum8(exponentials);
    const double normalizer = highest + logarithm(sum);
    const double uniform = (double)smoothing / (double)count;
    loss[0] = normalizer - at_target;
    loss[1] = smoothing > 0 ? normalizer - tree_sum8(logits) / (double)count : loss[0];
    loss[2] = normalizer * normalizer;
    if (sum != sum) {
        loss[0] = loss[1] = loss[2] = sum;
    }
    if (!gradient) {
        return;
    }
    const float factor = (float)(scale * (1.0 + 2.0 * (double)z * normalizer) / sum);
    const float share = (float)(scale * uniform);
    const double kept = scale * (1.0 + 2.0 * (double)z * normalizer) / sum * (double)x[target]
        - scale * ((1.0 - (double)smoothing) + uniform);
    for (size_t j = 0; j < count; j++) {
        x[j] = x[j] * factor - share;
    }
    // In float64: where the model is sure of its answer, this is a small difference of large numbers.
    x[target] = (float)kept;
}

// MARK: - Levels

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx2,fma")))

static AVX2 double dot64_avx2(const float *a, const float *b, size_t n) { return dot64(a, b, NULL, n); }
static AVX2 void norm_avx2(const float *x, const float *w, float e, size_t n, float *y) { train_norm(x, w, e, n, y); }
static AVX2 void norm_backward_avx2(const float *x, const float *w, const float *d, float e, size_t n, float *dx,
                                    double *dw) {
    train_norm_backward(x, w, d, e, n, dx, dw);
}
static AVX2 void slopes_avx2(int a, const float *z, size_t n, float *s) { logistic_slopes(a, z, n, s); }
static AVX2 void relu_backward_avx2(const float *h, size_t n, float *g) { relu_backward(h, n, g); }
static AVX2 void times_avx2(const float *b, size_t n, float *a) { times(b, n, a); }
static AVX2 void cross_entropy_avx2(float *x, size_t n, size_t t, float s, float z, double c, int g, double *l) {
    cross_entropy(x, n, t, s, z, c, g, l);
}
static AVX512 void cross_entropy_avx512(float *x, size_t n, size_t t, float s, float z, double c, int g, double *l) {
    cross_entropy(x, n, t, s, z, c, g, l);
}
#endif

double ck_dot64(int level, const float *a, const float *b, size_t count) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        return dot64_avx2(a, b, count);
    }
#endif
    (void)level;
    return dot64(a, b, NULL, count);
}

void ck_train_norm(int level, const float *x, const float *weight, float epsilon, size_t count, float *y) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        norm_avx2(x, weight, epsilon, count, y);
        return;
    }
#endif
    (void)level;
    train_norm(x, weight, epsilon, count, y);
}

void ck_train_norm_backward(int level, const float *x, const float *weight, const float *dy, float epsilon, size_t count,
                            float *dx, double *dweight) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        norm_backward_avx2(x, weight, dy, epsilon, count, dx, dweight);
        return;
    }
#endif
    (void)level;
    train_norm_backward(x, weight, dy, epsilon, count, dx, dweight);
}

void ck_activation_slopes(int level, int activation, const float *z, size_t count, float *slopes) {
    switch (activation) {
    case CK_ACTIVATION_GELU_TANH:
    case CK_ACTIVATION_SILU:
    case CK_ACTIVATION_QUICK_GELU: break;
    default: other_slopes(activation, z, count, slopes); return;
    }
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        slopes_avx2(activation, z, count, slopes);
        return;
    }
#endif
    (void)level;
    logistic_slopes(activation, z, count, slopes);
}

void ck_relu_backward(int level, const float *hidden, size_t count, float *gradient) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        relu_backward_avx2(hidden, count, gradient);
        return;
    }
#endif
    (void)level;
    relu_backward(hidden, count, gradient);
}

void ck_times(int level, const float *b, size_t count, float *a) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        times_avx2(b, count, a);
        return;
    }
#endif
    (void)level;
    times(b, count, a);
}

void ck_cross_entropy(int level, float *logits, size_t count, size_t target, float smoothing, float z, double scale,
                      int gradient, double loss[3]) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX512) {
        cross_entropy_avx512(logits, count, target, smoothing, z, scale, gradient, loss);
        return;
    }
    if (level >= CK_LEVEL_AVX2) {
        cross_entropy_avx2(logits, count, target, smoothing, z, scale, gradient, loss);
        return;
    }
#endif
    (void)level;
    cross_entropy(logits, count, target, smoothing, z, scale, gradient, loss);
}
