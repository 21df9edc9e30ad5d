// SPDX-License-Identifier: Apache-2.0

// What optimizers compute: passes over weights, gradients and moments in portable C, compiled once for each instruction set.
// Products and sums are not fused; sums run in float64, in eight lanes.

#include "Exponential.h"

#define DOUBLES 8

typedef double double8 __attribute__((vector_size(64)));

/// Up to sixteen numbers, then zeros.
CK_INLINE float16 load_some(const float *x, size_t count) {
    float16 values = {0};
    if (count >= LANES) {
        memcpy(&values, x, sizeof values);
    } else {
        memcpy(&values, x, count * sizeof(float));
    }
    return values;
}

CK_INLINE void store_some(float16 values, float *x, size_t count) {
    if (count >= LANES) {
        memcpy(x, &values, sizeof values);
    } else {
        memcpy(x, &values, count * sizeof(float));
    }
}

CK_INLINE double8 widen(float8 x) { return __builtin_convertvector(x, double8); }

CK_INLINE float8 load8(const float *x) {
    float8 values;
    memcpy(&values, x, sizeof values);
    return values;
}

CK_INLINE double8 load8d(const double *x) {
    double8 values;
    memcpy(&values, x, sizeof values);
    return values;
}

CK_INLINE double tree_sum8(double8 lanes) {
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

CK_INLINE double square_sum(const float *x, size_t count) {
    // Two at a time: one chain of sums would wait for each addition.
    double8 lanes = {0}, others = {0};
    size_t i = 0;
    for (; i + 2 * DOUBLES <= count; i += 2 * DOUBLES) {
        const double8 first = widen(load8(x + i)), second = widen(load8(x + i + DOUBLES));
        lanes += first * first;
        others += second * second;
    }
    for (size_t lane = 0; i + lane < count; lane++) {
        const double value = (double)x[i + lane];
        if (lane < DOUBLES) {
            lanes[lane] += value * value;
        } else {
            others[lane - DOUBLES] += value * value;
        }
    }
    return tree_sum8(lanes + others);
}

// MARK: - AdamW

CK_INLINE void adamw(const ck_adamw_factors *f, float *weights, const float *gradients, float *means, float *squares,
                     size_t count) {
    for (size_t i = 0; i < count; i += LANES) {
        const size_t left = count - i;
        const float16 gradient = load_some(gradients + i, left) * f->gradient_scale;
        float16 mean = load_some(means + i, left);
        float16 square = load_some(squares + i, left);
        const float16 weight = load_some(weights + i, left);
        mean = mean + f->mean_share * (gradient - mean);
        square = square * f->square_keep + f->square_share * (gradient * gradient);
        const float16 root = __builtin_elementwise_sqrt(square) / f->root_of_correction + f->epsilon;
        store_some(mean, means + i, left);
        store_some(square, squares + i, left);
        store_some(weight * f->keep - (f->step_size * mean) / root, weights + i, left);
    }
}

// MARK: - Adafactor

CK_INLINE double adafactor_gather(const float *gradients, float scale, float epsilon, size_t count, double *columns) {
    double8 lanes = {0};
    size_t i = 0;
    for (; i + DOUBLES <= count; i += DOUBLES) {
        const float8 scaled = load8(gradients + i) * scale;
        const double8 square = widen(scaled * scaled + epsilon);
        const double8 sums = load8d(columns + i) + square;
        memcpy(columns + i, &sums, sizeof sums);
        lanes += square;
    }
    for (size_t lane = 0; i + lane < count; lane++) {
        const float scaled = gradients[i + lane] * scale;
        const double square = (double)(scaled * scaled + epsilon);
        columns[i + lane] += square;
        lanes[lane] += square;
    }
    return tree_sum8(lanes);
}

CK_INLINE double adafactor_squares(const float *gradients, const float *columns, float row, float scale, size_t count) {
    double8 lanes = {0};
    size_t i = 0;
    for (; i + DOUBLES <= count; i += DOUBLES) {
        const double8 update = widen((row * load8(columns + i)) * (load8(gradients + i) * scale));
        lanes += update * update;
    }
    for (size_t lane = 0; i + lane < count; lane++) {
        const double update = (double)((row * columns[i + lane]) * (gradients[i + lane] * scale));
        lanes[lane] += update * update;
    }
    return tree_sum8(lanes);
}

CK_INLINE void adafactor_apply(float *weights, const float *gradients, const float *columns, float row, float scale,
                               float divisor, float rate, float keep, size_t count) {
    for (size_t i = 0; i < count; i += LANES) {
        const size_t left = count - i;
        const float16 scaled = load_some(gradients + i, left) * scale;
        const float16 update = (row * load_some(columns + i, left)) * scaled / divisor * rate;
        store_some(load_some(weights + i, left) * keep - update, weights + i, left);
    }
}

// MARK: - Levels

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx2,fma")))

static AVX2 double square_sum_avx2(const float *x, size_t n) { return square_sum(x, n); }
static AVX2 void adamw_avx2(const ck_adamw_factors *f, float *w, const float *g, float *m, float *s, size_t n) {
    adamw(f, w, g, m, s, n);
}
static AVX512 void adamw_avx512(const ck_adamw_factors *f, float *w, const float *g, float *m, float *s, size_t n) {
    adamw(f, w, g, m, s, n);
}
static AVX2 double gather_avx2(const float *g, float s, float e, size_t n, double *c) {
    return adafactor_gather(g, s, e, n, c);
}
static AVX2 double squares_avx2(const float *g, const float *c, float r, float s, size_t n) {
    return adafactor_squares(g, c, r, s, n);
}
static AVX2 void apply_avx2(float *w, const float *g, const float *c, float r, float s, float d, float l, float k,
                            size_t n) {
    adafactor_apply(w, g, c, r, s, d, l, k, n);
}
#endif

double ck_square_sum(int level, const float *x, size_t count) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        return square_sum_avx2(x, count);
    }
#endif
    (void)level;
    return square_sum(x, count);
}

void ck_adamw(int level, const ck_adamw_factors *factors, float *weights, const float *gradients, float *means,
              float *squares, size_t count) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX512) {
        adamw_avx512(factors, weights, gradients, means, squares, count);
        return;
    }
    if (level >= CK_LEVEL_AVX2) {
        adamw_avx2(factors, weights, gradients, means, squares, count);
        return;
    }
#endif
    (void)level;
    adamw(factors, weights, gradients, means, squares, count);
}

double ck_adafactor_gather(int level, const float *gradients, float scale, float epsilon, size_t count, double *columns) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        return gather_avx2(gradients, scale, epsilon, count, columns);
    }
#endif
    (void)level;
    return adafactor_gather(gradients, scale, epsilon, count, columns);
}

double ck_adafactor_squares(int level, const float *gradients, const float *columns, float row, float scale,
                            size_t count) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        return squares_avx2(gradients, columns, row, scale, count);
    }
#endif
    (void)level;
    return adafactor_squares(gradients, columns, row, scale, count);
}

void ck_adafactor_apply(int level, float *weights, const float *gradients, const float *columns, float row, float scale,
                        float divisor, float rate, float keep, size_t count) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        apply_avx2(weights, gradients, columns, row, scale, divisor, rate, keep, count);
        return;
    }
#endif
    (void)level;
    adafactor_apply(weights, gradients, columns, row, scale, divisor, rate, keep, count);
}
