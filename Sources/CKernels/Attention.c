// SPDX-License-Identifier: Apache-2.0

// The decoder's attention: queries of one head over keys and values that are kept in pages. Sums run as in Vectors.c, each
// query's by itself: which queries are computed together, and how keys are cut into pages, changes no bit.

#include "Internal.h"

#include <math.h>

#pragma STDC FP_CONTRACT OFF

#include "AttentionRows.h"

/// Element `index` of a row of keys or values; `bf16` is a constant wherever this is called.
CK_INLINE float element(const void *row, size_t index, const int bf16) {
    if (bf16) {
        uint16_t bits;
        memcpy(&bits, (const char *)row + index * sizeof bits, sizeof bits);
        return ck_bf16_to_f32(bits);
    }
    return ((const float *)row)[index];
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

/// Prefetches a page ahead, which the processor does not do by itself.
CK_INLINE void ahead(const char *row, size_t bytes) {
    for (size_t offset = 0; offset < bytes; offset += 64) {
        __builtin_prefetch(row + offset + 4096);
    }
}

// MARK: - Scores

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

/// tree_sum of sixteen keys at once: each step adds the halves of what its registers hold, two registers to one.
///
/// The steps put their j-th input's sum into lane 4 (j % 4) + j / 4, so key 4 (j % 4) + j / 4 is that input.
CK_INLINE float16 sixteen_sums(const float16 lanes[16]) {
    float16 eight[8], four[4], two[2];
    for (size_t i = 0; i < 8; i++) {
        const float16 a = lanes[8 * (i % 2) + i / 2], b = lanes[8 * (i % 2) + 4 + i / 2];
        eight[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
            + __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    }
    for (size_t i = 0; i < 4; i++) {
        const float16 a = eight[2 * i], b = eight[2 * i + 1];
        four[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
            + __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    }
    for (size_t i = 0; i < 2; i++) {
        const float16 a = four[2 * i], b = four[2 * i + 1];
        two[i] = __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
            + __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
    return __builtin_shufflevector(two[0], two[1], 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30)
        + __builtin_shufflevector(two[0], two[1], 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
}

/// Sixteen keys' products with the query at once, where there are registers for them. The width is a multiple of LANES; the
/// sums are those of `dot`.
CK_INLINE void sixteen_dots(const float *query, const char *keys, size_t stride_bytes, size_t width, float sums[16],
                            const int bf16) {
    float16 lanes[16] = {{0}};
    for (size_t i = 0; i < width; i += LANES) {
        const float16 part = load16(query, i, 0);
#pragma clang loop unroll(full)
        for (size_t key = 0; key < 16; key++) {
            lanes[key] = __builtin_elementwise_fma(part, load16(keys + key * stride_bytes, i, bf16), lanes[key]);
        }
    }
    const float16 all = sixteen_sums(lanes);
    memcpy(sums, &all, sizeof all);
}

/// scores[t] = dot(query, key t) + bias[t]. Keys follow each other; `fetches` says whether to prefetch a page ahead.
CK_INLINE void scores_of(const float *query, const char *keys, size_t width, size_t count, const float *bias, int fetches,
                         float *scores, const int bf16, const int wide) {
    const size_t stride = width * (bf16 ? 2 : 4);
    size_t t = 0;
    if (width % LANES == 0) {
        // Where memory is waited for, it is better asked for four keys at a time.
        for (; wide && !fetches && t + 16 <= count; t += 16) {
            sixteen_dots(query, keys + t * stride, stride, width, scores + t, bf16);
        }
        for (; t + 4 <= count; t += 4) {
            if (fetches) {
                ahead(keys + t * stride, 4 * stride);
            }
            four_dots(query, keys + t * stride, stride, width, scores + t, bf16);
        }
    }
    for (; t < count; t++) {
        if (fetches) {
            ahead(keys + t * stride, stride);
        }
        scores[t] = dot(query, keys + t * stride, width, bf16);
    }
    for (size_t i = 0; bias && i < count; i++) {
        scores[i] = scores[i] + bias[i];
    }
}

// MARK: - Contexts

/// `block` elements of the context, at most 64, whose sums stay in registers.
CK_INLINE void context_block(const float *weights, const char *values, size_t stride_bytes, size_t count, int fetches,
                             float *context, const size_t block, const int bf16) {
    float sums[64];
    memcpy(sums, context, block * sizeof(float));
    for (size_t t = 0; t < count; t++) {
        const char *value = values + t * stride_bytes;
        if (fetches) {
            ahead(value, block * (bf16 ? 2 : 4));
        }
        for (size_t lane = 0; lane < block; lane++) {
            sums[lane] = fmaf(weights[t], element(value, lane, bf16), sums[lane]);
        }
    }
    memcpy(context, sums, block * sizeof(float));
}

/// context[d] += sum over t of weights[t] * value t [d], one chain per element.
CK_INLINE void context_of(const float *weights, const char *values, size_t width, size_t count, int fetches,
                          float *context, const int bf16) {
    const size_t size = bf16 ? 2 : 4;
    const size_t stride = width * size;
    size_t d = 0;
    for (; d + 64 <= width; d += 64) {
        context_block(weights, values + d * size, stride, count, fetches, context + d, 64, bf16);
    }
    for (; d + 32 <= width; d += 32) {
        context_block(weights, values + d * size, stride, count, fetches, context + d, 32, bf16);
    }
    for (; d < width; d++) {
        float sum = context[d];
        for (size_t t = 0; t < count; t++) {
            sum = fmaf(weights[t], element(values + t * stride, d, bf16), sum);
        }
        context[d] = sum;
    }
}

/// Queries whose contexts are computed together: one chain by itself would wait for each of its multiply-adds.
#define TOGETHER 4

/// `vectors` times sixteen elements of TOGETHER contexts, whose sums stay in registers.
CK_INLINE void contexts_block(const float *weights, size_t weight_stride, const char *values, size_t stride_bytes,
                              size_t count, float *contexts, size_t stride, const size_t vectors, const int bf16) {
    float16 sums[TOGETHER][4];
    for (size_t query = 0; query < TOGETHER; query++) {
        for (size_t i = 0; i < vectors; i++) {
            sums[query][i] = load16(contexts + query * stride, i * LANES, 0);
        }
    }
    for (size_t t = 0; t < count; t++) {
        float16 value[4];
        for (size_t i = 0; i < vectors; i++) {
            value[i] = load16(values + t * stride_bytes, i * LANES, bf16);
        }
        for (size_t query = 0; query < TOGETHER; query++) {
            const float w = weights[query * weight_stride + t];
            const float16 weight = {w, w, w, w, w, w, w, w, w, w, w, w, w, w, w, w};
            for (size_t i = 0; i < vectors; i++) {
                sums[query][i] = __builtin_elementwise_fma(weight, value[i], sums[query][i]);
            }
        }
    }
    for (size_t query = 0; query < TOGETHER; query++) {
        for (size_t i = 0; i < vectors; i++) {
            memcpy(contexts + query * stride + i * LANES, &sums[query][i], sizeof sums[query][i]);
        }
    }
}

/// What context_of gives for each of TOGETHER queries. The width is a multiple of LANES.
CK_INLINE void contexts_of(const float *weights, size_t weight_stride, const char *values, size_t width, size_t count,
                           float *contexts, size_t stride, const int bf16, const int wide) {
    const size_t size = bf16 ? 2 : 4;
    size_t d = 0;
    for (; wide && d + 4 * LANES <= width; d += 4 * LANES) {
        contexts_block(weights, weight_stride, values + d * size, width * size, count, contexts + d, stride, 4, bf16);
    }
    for (; d < width; d += LANES) {
        contexts_block(weights, weight_stride, values + d * size, width * size, count, contexts + d, stride, 1, bf16);
    }
}

// MARK: - Attention

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

size_t ck_attend_floats(size_t keys) { return TOGETHER * ((keys + LANES - 1) / LANES * LANES); }

/// At most TOGETHER queries, the first of which sees `first` keys.
CK_INLINE void attend_some(const ck_kept_head *head, const float *queries, size_t stride, size_t count, size_t first,
                           size_t step, const float *bias, float *scores, float *contexts, const int bf16,
                           const int wide) {
    const size_t width = head->width;
    const size_t most = first + (count - 1) * step;
    const size_t row = ck_attend_floats(most) / TOGETHER;
    for (size_t start = 0, page = 0; start < most; start += head->page_tokens, page++) {
        const char *keys = (const char *)head->key_pages[page] + head->keys;
        const size_t here = smaller(head->page_tokens, most - start);
        for (size_t query = 0; query < count; query++) {
            const size_t seen = first + query * step;
            if (seen > start) {
                scores_of(queries + query * stride, keys, width, smaller(here, seen - start),
                          bias ? bias - query + start : NULL, query == 0, scores + query * row + start, bf16, wide);
            }
        }
    }
    for (size_t query = 0; query < count; query++) {
        softmax(scores + query * row, first + query * step);
        memset(contexts + query * stride, 0, width * sizeof(float));
    }
    const int together = count == TOGETHER && width % LANES == 0;
    for (size_t start = 0, page = 0; start < most; start += head->page_tokens, page++) {
        const char *values = (const char *)head->value_pages[page] + head->values;
        const size_t here = smaller(head->page_tokens, most - start);
        const size_t shared = together && first > start ? smaller(here, first - start) : 0;
        if (shared > 0) {
            contexts_of(scores + start, row, values, width, shared, contexts, stride, bf16, wide);
        }
        for (size_t query = 0; query < count; query++) {
            const size_t seen = first + query * step;
            if (seen > start + shared) {
                context_of(scores + query * row + start + shared, values + shared * width * (bf16 ? 2 : 4), width,
                           smaller(here, seen - start) - shared, query == 0, contexts + query * stride, bf16);
            }
        }
    }
}

CK_INLINE void attend(const ck_kept_head *head, const float *queries, size_t stride, size_t count, size_t keys,
                      size_t step, const float *bias, float *scores, float *contexts, const int wide) {
    for (size_t query = 0; query < count; query += TOGETHER) {
        const float *q = queries + query * stride;
        const size_t some = smaller(TOGETHER, count - query);
        const float *some_bias = bias ? bias - query : NULL;
        float *context = contexts + query * stride;
        if (head->type == CK_TYPE_BF16) {
            attend_some(head, q, stride, some, keys + query * step, step, some_bias, scores, context, 1, wide);
        } else {
            attend_some(head, q, stride, some, keys + query * step, step, some_bias, scores, context, 0, wide);
        }
    }
}

#if defined(__x86_64__)
static __attribute__((target("avx2,fma"))) void attend_avx2(const ck_kept_head *h, const float *q, size_t s, size_t n,
                                                            size_t k, size_t t, const float *b, float *r, float *c) {
    attend(h, q, s, n, k, t, b, r, c, 0);
}
static __attribute__((target("avx512f,avx2,fma"))) void attend_avx512(const ck_kept_head *h, const float *q, size_t s,
                                                                      size_t n, size_t k, size_t t, const float *b,
                                                                      float *r, float *c) {
    attend(h, q, s, n, k, t, b, r, c, 1);
}
#endif

void ck_attend(int level, const ck_kept_head *head, const float *queries, size_t stride, size_t count, size_t keys,
               size_t step, const float *bias, float *scores, float *contexts) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX512) {
        attend_avx512(head, queries, stride, count, keys, step, bias, scores, contexts);
        return;
    }
    if (level >= CK_LEVEL_AVX2) {
        attend_avx2(head, queries, stride, count, keys, step, bias, scores, contexts);
        return;
    }
#endif
    (void)level;
    attend(head, queries, stride, count, keys, step, bias, scores, contexts, 0);
}
