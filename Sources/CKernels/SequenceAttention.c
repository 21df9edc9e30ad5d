// SPDX-License-Identifier: Apache-2.0

// One head's attention over a whole sequence, from products that ck_multiply computes.

#include "PaddedRows.h"

static size_t panels(size_t columns) { return (columns + CK_PANEL_COLUMNS - 1) / CK_PANEL_COLUMNS; }

/// Where the scratch memory of the products ends and packed keys, packed values and scores begin.
static size_t keys_at(void) { return CK_SCRATCH_FLOATS; }

static size_t values_at(size_t keys, size_t width) { return keys_at() + panels(keys) * CK_PANEL_COLUMNS * width; }

static size_t scores_at(size_t keys, size_t width) {
    return values_at(keys, width) + panels(width) * CK_PANEL_COLUMNS * keys;
}

size_t ck_sequence_floats(size_t queries, size_t keys, size_t width) {
    return scores_at(keys, width) + queries * ck_attention_row(keys);
}

void ck_sequence_keep(const float *keys, const float *values, size_t stride, size_t count, size_t width, float *scratch) {
    ck_pack_panels(keys, stride, 1, width, count, scratch + keys_at(), 0, panels(count));
    ck_pack_panels(values, stride, 0, count, width, scratch + values_at(count, width), 0, panels(width));
}

CK_INLINE void softmax_rows(float *rows, size_t queries, size_t keys, const float *bias) {
    const size_t stride = ck_attention_row(keys);
    for (size_t query = 0; query < queries; query++) {
        softmax_row(rows + query * stride, bias ? bias - query : NULL, keys, stride);
    }
}

#if defined(__x86_64__)
static __attribute__((target("avx2,fma"))) void softmax_avx2(float *r, size_t q, size_t k, const float *b) {
    softmax_rows(r, q, k, b);
}
static __attribute__((target("avx512f,avx2,fma"))) void softmax_avx512(float *r, size_t q, size_t k, const float *b) {
    softmax_rows(r, q, k, b);
}
#endif

static void softmax(int level, float *rows, size_t queries, size_t keys, const float *bias) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX512) {
        softmax_avx512(rows, queries, keys, bias);
        return;
    }
    if (level >= CK_LEVEL_AVX2) {
        softmax_avx2(rows, queries, keys, bias);
        return;
    }
#endif
    (void)level;
    softmax_rows(rows, queries, keys, bias);
}

void ck_sequence_attend(int level, const float *queries, size_t stride, size_t count, size_t keys, size_t width,
                        const float *bias, float *contexts, float *scratch) {
    float *const scores = scratch + scores_at(keys, width);
    const size_t row = ck_attention_row(keys);
    ck_multiply(level, scratch + keys_at(), width, keys, 0, panels(keys), queries, stride, 0, count, scores, row, 0, 0,
                scratch);
    softmax(level, scores, count, keys, bias);
    ck_multiply(level, scratch + values_at(keys, width), keys, width, 0, panels(width), scores, row, 0, count, contexts,
                stride, 0, 0, scratch);
}
