// SPDX-License-Identifier: Apache-2.0

#include "Int8.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define UNROLL _Pragma("clang loop unroll(full)")

/// `rows` rows by `vectors` runs of eight columns, from column 8 * `first` of the panel on.
///
/// vpmaddubsw adds two products of an unsigned and a signed byte and saturates at 16 bits. Given the weights'
/// magnitudes and the activations with the weights' signs it adds two products of at most 127 * 127, which fits.
CK_INLINE TARGET void tile_256(const ck_int8_tile *tile, const int rows, const int first, const int vectors) {
    __m256i sums[6][4];
    const char *x[6];
    const __m256i ones = _mm256_set1_epi16(1);
    const char *weights = tile->panels + (size_t)first * 32;

    UNROLL for (int r = 0; r < rows; r++) {
        x[r] = tile->x + (size_t)r * tile->x_stride;
        UNROLL for (int v = 0; v < vectors; v++) {
            sums[r][v] = _mm256_setzero_si256();
        }
    }
    for (size_t group = 0; group < tile->groups; group++) {
        const char *at = weights + group * CK_INT8_GROUP_BYTES;
        if (vectors == 4) {
            _mm_prefetch(at + CK_INT8_PREFETCH_BYTES, _MM_HINT_T0);
            _mm_prefetch(at + CK_INT8_PREFETCH_BYTES + 64, _MM_HINT_T0);
        } else {
            _mm_prefetch(tile->ahead + group * tile->ahead_step, _MM_HINT_T1);
        }
        UNROLL for (int v = 0; v < vectors; v++) {
            const __m256i column = _mm256_loadu_si256((const __m256i *)(at + v * 32));
            const __m256i magnitudes = _mm256_abs_epi8(column);
            UNROLL for (int r = 0; r < rows; r++) {
                int32_t value;
                memcpy(&value, x[r] + group * CK_INT8_GROUP, sizeof value);
                const __m256i turned = _mm256_sign_epi8(_mm256_set1_epi32(value), column);
                const __m256i pairs = _mm256_maddubs_epi16(magnitudes, turned);
                sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    UNROLL for (int v = 0; v < vectors; v++) {
        const size_t column = (size_t)(first + v) * 8;
        const __m256 scale = _mm256_loadu_ps(tile->scales + column);
        UNROLL for (int r = 0; r < rows; r++) {
            const __m256 factor = _mm256_mul_ps(_mm256_set1_ps(tile->row_scales[r]), scale);
            __m256 result = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[r][v]), factor);
            if (tile->relu) {
                // The second operand wins where either is NaN, so NaN passes through.
                result = _mm256_max_ps(_mm256_setzero_ps(), result);
            }
            _mm256_storeu_ps(tile->y + (size_t)r * tile->y_stride + column, result);
        }
    }
}

#define HALVES_CASE(n)                                                                                                 \
    case n:                                                                                                            \
        tile_256(&pass, n, 0, 2);                                                                                      \
        pass.ahead += share;                                                                                           \
        tile_256(&pass, n, 2, 2);                                                                                      \
        break;

/// A pass over a panel, or two over its halves, each of which fetches its share of what is ahead.
static TARGET void panel_256(const ck_int8_tile *tile, size_t rows) {
    ck_int8_tile pass = *tile;
    const size_t share = tile->groups * tile->ahead_step;
    switch (rows) {
    case 1:
        tile_256(tile, 1, 0, 4);
        break;
    case 2:
        tile_256(tile, 2, 0, 4);
        break;
        HALVES_CASE(3)
        HALVES_CASE(4)
        HALVES_CASE(5)
        HALVES_CASE(6)
    }
}

void ck_int8_tile_avx2(const ck_int8_tile *tile, size_t rows, size_t panels) {
    const size_t passes = rows <= 2 ? 1 : rows <= 6 ? 2 : 4;
    ck_int8_tile one = *tile;
    for (size_t panel = 0; panel < panels; panel++) {
        // A single tile fetches the next panel.
        const size_t step = tile->ahead ? tile->ahead_step : CK_INT8_GROUP_BYTES;
        one.ahead = tile->ahead ? tile->ahead : one.panels + one.panel_bytes;
        one.ahead_step = (step + passes - 1) / passes;
        ck_int8_by_panels(&one, rows, 1, 6, panel_256);
        one.panels += one.panel_bytes;
        one.scales += CK_PANEL_COLUMNS;
        one.y += CK_PANEL_COLUMNS;
        one.columns -= CK_PANEL_COLUMNS;
    }
}

#endif
