// SPDX-License-Identifier: Apache-2.0

// One head of one sequence's attention, forward and backward, from products that ck_multiply computes.

#include "Internal.h"

#pragma STDC FP_CONTRACT OFF

static size_t up(size_t count) { return (count + CK_PANEL_COLUMNS - 1) / CK_PANEL_COLUMNS * CK_PANEL_COLUMNS; }

size_t ck_attention_floats(size_t queries, size_t keys, size_t width) {
    const size_t longest = queries > keys ? queries : keys;
    const size_t widest = up(longest) > up(width) ? up(longest) : up(width);
    const size_t deepest = longest > width ? longest : width;
    return CK_SCRATCH_FLOATS + widest * deepest + 2 * (queries * keys + 16);
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
    return scratch + ck_attention_floats(a->queries, a->keys, a->width) - (2 - index) * (a->queries * a->keys + 16);
}

static size_t visible(const ck_attention *a, size_t query) {
    return a->causal && query + 1 < a->keys ? query + 1 : a->keys;
}

/// The probabilities after dropout; those themselves where there is none.
static const float *dropped(const ck_attention *a, const float *probabilities, float *room) {
    if (a->threshold == 0) {
        return probabilities;
    }
    memcpy(room, probabilities, a->queries * a->keys * sizeof(float));
    for (size_t query = 0; query < a->queries; query++) {
        const uint32_t counter[3] = {a->counter[0] + (uint32_t)query, a->counter[1], a->counter[2]};
        ck_dropout(a->level, room + query * a->keys, a->keys, a->threshold, a->keep_scale, counter, a->key);
    }
    return room;
}

void ck_attention_forward(const ck_attention *a, const float *q, const float *k, const float *v, float *probabilities,
                          float *context, float *scratch) {
    const size_t stride = a->stride;
    multiply(a->level, q, stride, 0, k, stride, 1, a->queries, a->width, a->keys, probabilities, a->keys, scratch);
    for (size_t query = 0; query < a->queries; query++) {
        float *row = probabilities + query * a->keys;
        const size_t count = visible(a, query);
        if (a->bias) {
            const float *bias = a->bias + (a->queries - 1 - query);
            ck_add(row, bias, count, row);
        }
        ck_softmax(a->level, row, count);
        memset(row + count, 0, (a->keys - count) * sizeof(float));
    }
    const float *weights = dropped(a, probabilities, matrix(a, scratch, 0));
    multiply(a->level, weights, a->keys, 0, v, stride, 0, a->queries, a->keys, a->width, context, stride, scratch);
}

void ck_attention_backward(const ck_attention *a, const float *q, const float *k, const float *v,
                           const float *probabilities, const float *dcontext, float *dq, float *dk, float *dv,
                           double *dbias, float *scratch) {
    const size_t stride = a->stride;
    float *scores = matrix(a, scratch, 1);
    const float *weights = dropped(a, probabilities, matrix(a, scratch, 0));
    multiply(a->level, weights, a->keys, 1, dcontext, stride, 0, a->keys, a->queries, a->width, dv, stride, scratch);
    multiply(a->level, dcontext, stride, 0, v, stride, 1, a->queries, a->width, a->keys, scores, a->keys, scratch);
    for (size_t query = 0; query < a->queries; query++) {
        float *row = scores + query * a->keys;
        const float *probability = probabilities + query * a->keys;
        const size_t count = visible(a, query);
        if (a->threshold > 0) {
            const uint32_t counter[3] = {a->counter[0] + (uint32_t)query, a->counter[1], a->counter[2]};
            ck_dropout(a->level, row, a->keys, a->threshold, a->keep_scale, counter, a->key);
        }
        const float mean = (float)ck_dot64(a->level, row, probability, count);
        for (size_t key = 0; key < count; key++) {
            row[key] = probability[key] * (row[key] - mean);
        }
        memset(row + count, 0, (a->keys - count) * sizeof(float));
        if (dbias) {
            double *bias = dbias + (a->queries - 1 - query);
            for (size_t key = 0; key < count; key++) {
                bias[key] += (double)row[key];
            }
        }
    }
    multiply(a->level, scores, a->keys, 0, k, stride, 0, a->queries, a->keys, a->width, dq, stride, scratch);
    multiply(a->level, scores, a->keys, 1, q, stride, 0, a->keys, a->queries, a->width, dk, stride, scratch);
}
