// SPDX-License-Identifier: Apache-2.0

// One head of one sequence's attention, forward and backward, from products that ck_multiply computes.

#include "PaddedRows.h"

#define DOUBLES 8

typedef double double8 __attribute__((vector_size(64)));

static size_t up(size_t count) { return (count + CK_PANEL_COLUMNS - 1) / CK_PANEL_COLUMNS * CK_PANEL_COLUMNS; }

size_t ck_attention_row(size_t keys) { return (keys + LANES - 1) / LANES * LANES; }

/// Floats of a matrix [queries][keys] whose rows are padded.
static size_t matrix_floats(size_t queries, size_t keys) { return queries * ck_attention_row(keys) + LANES; }

size_t ck_attention_floats(size_t queries, size_t keys, size_t width) {
    const size_t longest = queries > keys ? queries : keys;
    const size_t widest = up(longest) > up(width) ? up(longest) : up(width);
    const size_t deepest = longest > width ? longest : width;
    return CK_SCRATCH_FLOATS + widest * deepest + 2 * matrix_floats(queries, keys);
}

/// y = a * b or y += a * b, packing b first.
static void multiply(int level, const float *a, size_t a_stride, int a_transposed, const float *b, size_t b_stride,
                     int b_transposed, size_t rows, size_t depth, size_t columns, float *y, size_t y_stride,
                     float *scratch) {
    float *panels = scratch + CK_SCRATCH_FLOATS;
    const size_t count = up(columns) / CK_PANEL_COLUMNS;
    ck_pack_panels(b, b_stride, b_transposed, depth, columns, panels, 0, count);
    ck_multiply(level, panels, depth, columns, 0, count, a, a_stride, a_transposed, rows, y, y_stride, 0, 0, scratch);
}

/// Where the two matrices [queries][keys] lie in the scratch memory.
static float *matrix(const ck_attention *a, float *scratch, size_t index) {
    return scratch + ck_attention_floats(a->queries, a->keys, a->width) - (2 - index) * matrix_floats(a->queries, a->keys);
}

CK_INLINE size_t visible(const ck_attention *a, size_t query) {
    return a->causal && query + 1 < a->keys ? query + 1 : a->keys;
}

/// The probabilities after dropout; those themselves where there is none.
static const float *dropped(const ck_attention *a, const float *probabilities, float *room) {
    if (a->threshold == 0) {
        return probabilities;
    }
    const size_t stride = ck_attention_row(a->keys);
    memcpy(room, probabilities, a->queries * stride * sizeof(float));
    for (size_t query = 0; query < a->queries; query++) {
        const uint32_t counter[3] = {a->counter[0] + (uint32_t)query, a->counter[1], a->counter[2]};
        ck_dropout(a->level, room + query * stride, a->keys, a->threshold, a->keep_scale, counter, a->key);
    }
    return room;
}

// MARK: - Rows

CK_INLINE void softmax_rows(const ck_attention *a, float *probabilities) {
    const size_t stride = ck_attention_row(a->keys);
    for (size_t query = 0; query < a->queries; query++) {
        const float *bias = a->bias ? a->bias + (a->queries - 1 - query) : NULL;
        softmax_row(probabilities + query * stride, bias, visible(a, query), stride);
    }
}

CK_INLINE double8 widen8(float8 x) { return __builtin_convertvector(x, double8); }

CK_INLINE float8 low8(float16 x) { return __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7); }

CK_INLINE float8 high8(float16 x) { return __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15); }

/// Turns the gradients of probabilities into those of scores: p * (dp - sum of dp * p), the sum in eight lanes of float64.
CK_INLINE void softmax_row_backward(float *row, const float *probability, size_t count, size_t stride, double *bias) {
    double8 lanes = {0};
    for (size_t i = 0; i < count; i += LANES) {
        const float16 part = keep_first16(load16(row + i), count - i < LANES ? count - i : LANES);
        const float16 share = load16(probability + i);
        store16(part, row + i);
        lanes += widen8(low8(part)) * widen8(low8(share));
        lanes += widen8(high8(part)) * widen8(high8(share));
    }
    const float mean = (float)(((lanes[0] + lanes[4]) + (lanes[2] + lanes[6]))
                               + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7])));
    for (size_t i = 0; i < stride; i += LANES) {
        const size_t left = i < count ? count - i : 0;
        const float16 part = load16(probability + i) * (load16(row + i) - mean);
        store16(keep_first16(part, left < LANES ? left : LANES), row + i);
    }
    if (!bias) {
        return;
    }
    size_t i = 0;
    for (; i + DOUBLES <= count; i += DOUBLES) {
        double8 sums;
        float8 part;
        memcpy(&sums, bias + i, sizeof sums);
        memcpy(&part, row + i, sizeof part);
        sums += widen8(part);
        memcpy(bias + i, &sums, sizeof sums);
    }
    for (; i < count; i++) {
        bias[i] += (double)row[i];
    }
}

CK_INLINE void softmax_rows_backward(const ck_attention *a, const float *probabilities, float *scores, double *dbias) {
    const size_t stride = ck_attention_row(a->keys);
    for (size_t query = 0; query < a->queries; query++) {
        float *row = scores + query * stride;
        if (a->threshold > 0) {
            const uint32_t counter[3] = {a->counter[0] + (uint32_t)query, a->counter[1], a->counter[2]};
            ck_dropout(a->level, row, a->keys, a->threshold, a->keep_scale, counter, a->key);
        }
        double *bias = dbias ? dbias + (a->queries - 1 - query) : NULL;
        softmax_row_backward(row, probabilities + query * stride, visible(a, query), stride, bias);
    }
}

// MARK: - Levels

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx2,fma")))

static AVX2 void softmax_avx2(const ck_attention *a, float *p) { softmax_rows(a, p); }
static AVX512 void softmax_avx512(const ck_attention *a, float *p) { softmax_rows(a, p); }
static AVX2 void backward_avx2(const ck_attention *a, const float *p, float *s, double *d) {
    softmax_rows_backward(a, p, s, d);
}
static AVX512 void backward_avx512(const ck_attention *a, const float *p, float *s, double *d) {
    softmax_rows_backward(a, p, s, d);
}
#endif

static void softmax(const ck_attention *a, float *probabilities) {
#if defined(__x86_64__)
    if (a->level >= CK_LEVEL_AVX512) {
        softmax_avx512(a, probabilities);
        return;
    }
    if (a->level >= CK_LEVEL_AVX2) {
        softmax_avx2(a, probabilities);
        return;
    }
#endif
    softmax_rows(a, probabilities);
}

static void softmax_backward(const ck_attention *a, const float *probabilities, float *scores, double *dbias) {
#if defined(__x86_64__)
    if (a->level >= CK_LEVEL_AVX512) {
        backward_avx512(a, probabilities, scores, dbias);
        return;
    }
    if (a->level >= CK_LEVEL_AVX2) {
        backward_avx2(a, probabilities, scores, dbias);
        return;
    }
#endif
    softmax_rows_backward(a, probabilities, scores, dbias);
}

void ck_attention_forward(const ck_attention *a, const float *q, const float *k, const float *v, float *probabilities,
                          float *context, float *scratch) {
    const size_t stride = a->stride, row = ck_attention_row(a->keys);
    multiply(a->level, q, stride, 0, k, stride, 1, a->queries, a->width, a->keys, probabilities, row, scratch);
    softmax(a, probabilities);
    const float *weights = dropped(a, probabilities, matrix(a, scratch, 0));
    multiply(a->level, weights, row, 0, v, stride, 0, a->queries, a->keys, a->width, context, stride, scratch);
}

void ck_attention_backward(const ck_attention *a, const float *q, const float *k, const float *v,
                           const float *probabilities, const float *dcontext, float *dq, float *dk, float *dv,
                           double *dbias, float *scratch) {
    const size_t stride = a->stride, row = ck_attention_row(a->keys);
    float *scores = matrix(a, scratch, 1);
    const float *weights = dropped(a, probabilities, matrix(a, scratch, 0));
    multiply(a->level, weights, row, 1, dcontext, stride, 0, a->keys, a->queries, a->width, dv, stride, scratch);
    multiply(a->level, dcontext, stride, 0, v, stride, 1, a->queries, a->width, a->keys, scores, row, scratch);
    softmax_backward(a, probabilities, scores, dbias);
    multiply(a->level, scores, row, 0, k, stride, 0, a->queries, a->keys, a->width, dq, stride, scratch);
    multiply(a->level, scores, row, 1, q, stride, 0, a->keys, a->queries, a->width, dk, stride, scratch);
}
