// SPDX-License-Identifier: Apache-2.0

// Random numbers of training: Philox4x32-10 (J. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), a
// function of key and counter, so that a number depends on neither threads nor the order of calls.

#include "Internal.h"

#pragma STDC FP_CONTRACT OFF

/// Blocks computed together.
#define BLOCKS 8

/// The blocks of the counters (first + i, c1, c2, c3), i in 0 ..< BLOCKS: words[w][i].
CK_INLINE void philox(uint32_t first, const uint32_t counter[3], const uint32_t key[2], uint32_t words[4][BLOCKS]) {
    uint32_t k0 = key[0], k1 = key[1];
    for (uint32_t i = 0; i < BLOCKS; i++) {
        words[0][i] = first + i;
        words[1][i] = counter[0];
        words[2][i] = counter[1];
        words[3][i] = counter[2];
    }
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            const uint64_t a = (uint64_t)0xD2511F53u * words[0][i];
            const uint64_t b = (uint64_t)0xCD9E8D57u * words[2][i];
            const uint32_t second = words[1][i], fourth = words[3][i];
            words[0][i] = (uint32_t)(b >> 32) ^ second ^ k0;
            words[1][i] = (uint32_t)b;
            words[2][i] = (uint32_t)(a >> 32) ^ fourth ^ k1;
            words[3][i] = (uint32_t)a;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

void ck_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t block[4]) {
    uint32_t words[4][BLOCKS];
    philox(counter[0], counter + 1, key, words);
    for (int w = 0; w < 4; w++) {
        block[w] = words[w][0];
    }
}

CK_INLINE void dropout(float *x, size_t count, uint32_t threshold, float scale, const uint32_t counter[3],
                       const uint32_t key[2]) {
    uint32_t words[4][BLOCKS];
    for (size_t begin = 0; begin < count; begin += 8 * BLOCKS) {
        philox((uint32_t)(begin / 8), counter, key, words);
        const size_t end = count - begin < 8 * BLOCKS ? count - begin : 8 * BLOCKS;
        for (size_t i = 0; i < end; i++) {
            const uint32_t word = words[(i & 7) >> 1][i >> 3];
            const uint32_t half = i & 1 ? word >> 16 : word & 0xFFFF;
            x[begin + i] = half < threshold ? 0.0f : x[begin + i] * scale;
        }
    }
}

CK_INLINE void jitter(const float *x, size_t count, float epsilon, const uint32_t counter[3], const uint32_t key[2],
                      float *y) {
    uint32_t words[4][BLOCKS];
    for (size_t begin = 0; begin < count; begin += 4 * BLOCKS) {
        philox((uint32_t)(begin / 4), counter, key, words);
        const size_t end = count - begin < 4 * BLOCKS ? count - begin : 4 * BLOCKS;
        for (size_t i = 0; i < end; i++) {
            // Within -1 ... 1 - 2^-23, a multiple of 2^-23.
            const float unit = (float)((int32_t)words[i & 3][i >> 2] >> 8) * 0x1p-23f;
            y[begin + i] = x[begin + i] * (1.0f + epsilon * unit);
        }
    }
}

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,fma")))

static AVX2 void dropout_avx2(float *x, size_t n, uint32_t t, float s, const uint32_t *c, const uint32_t *k) {
    dropout(x, n, t, s, c, k);
}
static AVX2 void jitter_avx2(const float *x, size_t n, float e, const uint32_t *c, const uint32_t *k, float *y) {
    jitter(x, n, e, c, k, y);
}
#endif

void ck_dropout(int level, float *x, size_t count, uint32_t threshold, float scale, const uint32_t counter[3],
                const uint32_t key[2]) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        dropout_avx2(x, count, threshold, scale, counter, key);
        return;
    }
#endif
    (void)level;
    dropout(x, count, threshold, scale, counter, key);
}

void ck_jitter(int level, const float *x, size_t count, float epsilon, const uint32_t counter[3],
               const uint32_t key[2], float *y) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        jitter_avx2(x, count, epsilon, counter, key, y);
        return;
    }
#endif
    (void)level;
    jitter(x, count, epsilon, counter, key, y);
}
