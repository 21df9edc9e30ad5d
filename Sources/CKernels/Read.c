// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/// Bytes that one turn of the loops reads: four cache lines.
#define STEP_BYTES 256

/// A page ahead, past which the processor does not prefetch by itself; the same as the packed product.
#define PREFETCH_BYTES 4096

static uint64_t read_plain(const char *at, size_t steps) {
    uint64_t sums[4] = {0, 0, 0, 0};
    for (; steps > 0; steps--, at += STEP_BYTES) {
        uint64_t words[STEP_BYTES / 8];
        for (int line = 0; line < 4; line++) {
            __builtin_prefetch(at + PREFETCH_BYTES + 64 * line);
        }
        memcpy(words, at, sizeof words);
        for (int word = 0; word < STEP_BYTES / 8; word++) {
            sums[word % 4] ^= words[word];
        }
    }
    return sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
}

#if defined(__x86_64__)

static __attribute__((target("avx2"))) uint64_t read_avx2(const char *at, size_t steps) {
    __m256i sums[4];
    uint64_t words[4];
    for (int line = 0; line < 4; line++) {
        sums[line] = _mm256_setzero_si256();
    }
    for (; steps > 0; steps--, at += STEP_BYTES) {
        for (int line = 0; line < 4; line++) {
            _mm_prefetch(at + PREFETCH_BYTES + 64 * line, _MM_HINT_T0);
            const __m256i low = _mm256_loadu_si256((const __m256i *)(at + 64 * line));
            const __m256i high = _mm256_loadu_si256((const __m256i *)(at + 64 * line + 32));
            sums[line] = _mm256_xor_si256(sums[line], _mm256_xor_si256(low, high));
        }
    }
    const __m256i left = _mm256_xor_si256(sums[0], sums[1]);
    const __m256i right = _mm256_xor_si256(sums[2], sums[3]);
    _mm256_storeu_si256((__m256i *)words, _mm256_xor_si256(left, right));
    return words[0] ^ words[1] ^ words[2] ^ words[3];
}

static __attribute__((target("avx512f"))) uint64_t read_avx512(const char *at, size_t steps) {
    __m512i sums[4];
    uint64_t words[8];
    for (int line = 0; line < 4; line++) {
        sums[line] = _mm512_setzero_si512();
    }
    for (; steps > 0; steps--, at += STEP_BYTES) {
        for (int line = 0; line < 4; line++) {
            _mm_prefetch(at + PREFETCH_BYTES + 64 * line, _MM_HINT_T0);
            sums[line] = _mm512_xor_si512(sums[line], _mm512_loadu_si512(at + 64 * line));
        }
    }
    const __m512i left = _mm512_xor_si512(sums[0], sums[1]);
    const __m512i right = _mm512_xor_si512(sums[2], sums[3]);
    _mm512_storeu_si512(words, _mm512_xor_si512(left, right));
    return words[0] ^ words[1] ^ words[2] ^ words[3] ^ words[4] ^ words[5] ^ words[6] ^ words[7];
}

#endif

uint64_t ck_read(int level, const void *bytes, size_t count) {
    const char *at = bytes;
    const size_t steps = count / STEP_BYTES;
    uint64_t result;
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX512) {
        result = read_avx512(at, steps);
    } else if (level >= CK_LEVEL_AVX2) {
        result = read_avx2(at, steps);
    } else {
        result = read_plain(at, steps);
    }
#else
    (void)level;
    result = read_plain(at, steps);
#endif
    for (size_t index = steps * STEP_BYTES; index < count; index++) {
        result ^= (uint64_t)(uint8_t)at[index] << (8 * (index % 8));
    }
    return result;
}
