// SPDX-License-Identifier: Apache-2.0

// Layer normalisation with its gradients, and the sums that biases learn from.

#include "Softmax.h"

CK_INLINE double8 load8(const float *x) {
    float8 part;
    memcpy(&part, x, sizeof part);
    return __builtin_convertvector(part, double8);
}

/// Less than eight numbers, then zeros.
CK_INLINE double8 load_first8(const float *x, size_t count) {
    double8 part = {0};
    for (size_t lane = 0; lane < count; lane++) {
        part[lane] = (double)x[lane];
    }
    return part;
}

CK_INLINE double mean_of(const float *x, size_t count) {
    double8 lanes = {0};
    size_t i = 0;
    for (; i + DOUBLES <= count; i += DOUBLES) {
        lanes += load8(x + i);
    }
    if (i < count) {
        lanes += load_first8(x + i, count - i);
    }
    return tree_sum8(lanes) / (double)count;
}

/// 1 / sqrt(variance + epsilon).
CK_INLINE double inverse_deviation(const float *x, double mean, float epsilon, size_t count) {
    double8 lanes = {0};
    size_t i = 0;
    for (; i + DOUBLES <= count; i += DOUBLES) {
        const double8 part = load8(x + i) - mean;
        lanes += part * part;
    }
    for (size_t lane = 0; i + lane < count; lane++) {
        const double part = (double)x[i + lane] - mean;
        lanes[lane] += part * part;
    }
    return 1.0 / sqrt(tree_sum8(lanes) / (double)count + (double)epsilon);
}

CK_INLINE void layer_norm(const float *x, const float *weight, const float *bias, float epsilon, size_t count, float *y) {
    const double mean = mean_of(x, count);
    const float center = (float)mean;
    const float inverse = (float)inverse_deviation(x, mean, epsilon, count);
    for (size_t i = 0; i < count; i++) {
        y[i] = weight[i] * ((x[i] - center) * inverse) + bias[i];
    }
}

CK_INLINE void layer_norm_backward(const float *x, const float *weight, const float *dy, float epsilon, size_t count,
                                   float *dx, double *dweight, double *dbias) {
    const double mean = mean_of(x, count);
    const double inverse = inverse_deviation(x, mean, epsilon, count);
    double8 all = {0};
    double8 along = {0};
    size_t i = 0;
    for (; i + DOUBLES <= count; i += DOUBLES) {
        const double8 unit = (load8(x + i) - mean) * inverse;
        const double8 outer = load8(dy + i);
        const double8 inner = outer * load8(weight + i);
        double8 sums;
        memcpy(&sums, dweight + i, sizeof sums);
        sums += outer * unit;
        memcpy(dweight + i, &sums, sizeof sums);
        memcpy(&sums, dbias + i, sizeof sums);
        sums += outer;
        memcpy(dbias + i, &sums, sizeof sums);
        all += inner;
        along += inner * unit;
    }
    for (size_t lane = 0; i + lane < count; lane++) {
        const double unit = ((double)x[i + lane] - mean) * inverse;
        const double outer = (double)dy[i + lane];
        const double inner = outer * (double)weight[i + lane];
        dweight[i + lane] += outer * unit;
        dbias[i + lane] += outer;
        all[lane] += inner;
        along[lane] += inner * unit;
    }
    const double constant = tree_sum8(all) / (double)count;
    const double slope = tree_sum8(along) / (double)count;
    for (size_t j = 0; j < count; j++) {
        const double unit = ((double)x[j] - mean) * inverse;
        dx[j] += (float)(inverse * ((double)dy[j] * (double)weight[j] - constant - unit * slope));
    }
}

CK_INLINE void column_sums(const float *x, size_t stride, size_t rows, size_t columns, double *sums) {
    for (size_t row = 0; row < rows; row++) {
        const float *values = x + row * stride;
        size_t i = 0;
        for (; i + DOUBLES <= columns; i += DOUBLES) {
            double8 part;
            memcpy(&part, sums + i, sizeof part);
            part += load8(values + i);
            memcpy(sums + i, &part, sizeof part);
        }
        for (; i < columns; i++) {
            sums[i] += (double)values[i];
        }
    }
}

// MARK: - Levels

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,fma")))

static AVX2 void forward_avx2(const float *x, const float *w, const float *b, float e, size_t n, float *y) {
    layer_norm(x, w, b, e, n, y);
}
static AVX2 void backward_avx2(const float *x, const float *w, const float *d, float e, size_t n, float *dx, double *dw,
                               double *db) {
    layer_norm_backward(x, w, d, e, n, dx, dw, db);
}
static AVX2 void column_sums_avx2(const float *x, size_t stride, size_t rows, size_t columns, double *sums) {
    column_sums(x, stride, rows, columns, sums);
}
#endif

void ck_train_layer_norm(int level, const float *x, const float *weight, const float *bias, float epsilon, size_t count,
                         float *y) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        forward_avx2(x, weight, bias, epsilon, count, y);
        return;
    }
#endif
    (void)level;
    layer_norm(x, weight, bias, epsilon, count, y);
}

void ck_train_layer_norm_backward(int level, const float *x, const float *weight, const float *dy, float epsilon,
                                  size_t count, float *dx, double *dweight, double *dbias) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        backward_avx2(x, weight, dy, epsilon, count, dx, dweight, dbias);
        return;
    }
#endif
    (void)level;
    layer_norm_backward(x, weight, dy, epsilon, count, dx, dweight, dbias);
}

void ck_column_sums(int level, const float *x, size_t stride, size_t rows, size_t columns, double *sums) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        column_sums_avx2(x, stride, rows, columns, sums);
        return;
    }
#endif
    (void)level;
    column_sums(x, stride, rows, columns, sums);
}
