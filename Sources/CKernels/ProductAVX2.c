// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define UNROLL _Pragma("clang loop unroll(full)")

/// How far ahead of the multiply-adds the weights are prefetched, in bytes of one panel: a page, past which the
/// processor does not prefetch by itself.
#define PREFETCH_BYTES 4096

CK_INLINE TARGET __m256 load_weights(const void *weights, size_t index, int bf16) {
    if (bf16) {
        const __m128i narrow = _mm_loadu_si128((const __m128i *)((const uint16_t *)weights + index));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
    }
    return _mm256_loadu_ps((const float *)weights + index);
}

/// `rows` rows by `vectors` runs of eight columns, from column 8 * `first` of the panel on. With 16 registers there is
/// room for 12 sums, so that tall tiles cross a panel in two halves.
CK_INLINE TARGET void tile_256(const ck_tile *tile, const int rows, const int first, const int vectors,
                               const int bf16) {
    __m256 sums[6][4];
    const float *x = tile->x;
    const size_t element = bf16 ? 2 : 4;
    const char *weights = (const char *)tile->panels + (size_t)first * 8 * element;

    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) {
            sums[r][v] = tile->accumulate
                ? _mm256_loadu_ps(tile->y + (size_t)r * tile->y_stride + (first + v) * 8)
                : _mm256_setzero_ps();
        }
    }
    for (size_t k = 0; k < tile->inputs; k++) {
        const char *at = weights + k * CK_PANEL_COLUMNS * element;
        __m256 column[4];
        _mm_prefetch(at + PREFETCH_BYTES, _MM_HINT_T0);
        if (!bf16 && vectors == 4) {
            _mm_prefetch(at + PREFETCH_BYTES + 64, _MM_HINT_T0);
        }
        UNROLL for (int v = 0; v < vectors; v++) {
            column[v] = load_weights(at, (size_t)v * 8, bf16);
        }
        UNROLL for (int r = 0; r < rows; r++) {
            const __m256 value = _mm256_set1_ps(x[r]);
            UNROLL for (int v = 0; v < vectors; v++) {
                sums[r][v] = _mm256_fmadd_ps(value, column[v], sums[r][v]);
            }
        }
        x += tile->x_step;
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) {
            __m256 sum = sums[r][v];
            if (tile->relu) {
                // The second operand wins where either is NaN, so NaN passes through.
                sum = _mm256_max_ps(_mm256_setzero_ps(), sum);
            }
            _mm256_storeu_ps(tile->y + (size_t)r * tile->y_stride + (first + v) * 8, sum);
        }
    }
}

/// One row by two panels, for eight chains in flight.
CK_INLINE TARGET void row_by_two_panels(const ck_tile *tile, const int bf16) {
    __m256 sums[8];
    const size_t element = bf16 ? 2 : 4;
    const char *weights[2] = {
        (const char *)tile->panels,
        (const char *)tile->panels + tile->panel_stride * element,
    };
    UNROLL for (int v = 0; v < 8; v++) {
        sums[v] = tile->accumulate ? _mm256_loadu_ps(tile->y + v * 8) : _mm256_setzero_ps();
    }
    for (size_t k = 0; k < tile->inputs; k++) {
        const __m256 value = _mm256_set1_ps(tile->x[k]);
        UNROLL for (int p = 0; p < 2; p++) {
            const char *at = weights[p] + k * CK_PANEL_COLUMNS * element;
            _mm_prefetch(at + PREFETCH_BYTES, _MM_HINT_T0);
            if (!bf16) {
                _mm_prefetch(at + PREFETCH_BYTES + 64, _MM_HINT_T0);
            }
            UNROLL for (int v = 0; v < 4; v++) {
                sums[4 * p + v] = _mm256_fmadd_ps(value, load_weights(at, (size_t)v * 8, bf16), sums[4 * p + v]);
            }
        }
    }
    UNROLL for (int v = 0; v < 8; v++) {
        __m256 sum = sums[v];
        if (tile->relu) {
            sum = _mm256_max_ps(_mm256_setzero_ps(), sum);
        }
        _mm256_storeu_ps(tile->y + v * 8, sum);
    }
}

#define HALVES_CASE(n)                                                                                                 \
    case n:                                                                                                            \
        tile_256(tile, n, 0, 2, bf16);                                                                                 \
        tile_256(tile, n, 2, 2, bf16);                                                                                 \
        break;

CK_INLINE TARGET void panel_256(const ck_tile *tile, size_t rows, const int bf16) {
    switch (rows) {
    case 1:
        tile_256(tile, 1, 0, 4, bf16);
        break;
    case 2:
        tile_256(tile, 2, 0, 4, bf16);
        break;
    case 3:
        tile_256(tile, 3, 0, 4, bf16);
        break;
        HALVES_CASE(4)
        HALVES_CASE(5)
        HALVES_CASE(6)
    }
}

static TARGET void panel_f32(const ck_tile *tile, size_t rows) { panel_256(tile, rows, 0); }
static TARGET void panel_bf16(const ck_tile *tile, size_t rows) { panel_256(tile, rows, 1); }
static TARGET void two_panels_f32(const ck_tile *tile) { row_by_two_panels(tile, 0); }
static TARGET void two_panels_bf16(const ck_tile *tile) { row_by_two_panels(tile, 1); }

/// Up to six rows by one panel, the last panel's missing columns going to a spare buffer.
static void run_one(const ck_tile *tile, size_t rows, int type) {
    ck_tile one = *tile;
    float spare[6 * CK_PANEL_COLUMNS];
    const int partial = tile->columns < CK_PANEL_COLUMNS;
    if (partial) {
        memset(spare, 0, sizeof spare);
        if (tile->accumulate) {
            for (size_t row = 0; row < rows; row++) {
                memcpy(spare + row * CK_PANEL_COLUMNS, tile->y + row * tile->y_stride, tile->columns * sizeof(float));
            }
        }
        one.y = spare;
        one.y_stride = CK_PANEL_COLUMNS;
    }
    if (type == CK_TYPE_BF16) {
        panel_bf16(&one, rows);
    } else {
        panel_f32(&one, rows);
    }
    if (partial) {
        for (size_t row = 0; row < rows; row++) {
            memcpy(tile->y + row * tile->y_stride, spare + row * CK_PANEL_COLUMNS, tile->columns * sizeof(float));
        }
    }
}

void ck_tile_avx2(const ck_tile *tile, size_t rows, size_t panels, int type) {
    ck_tile one = *tile;
    const size_t element = type == CK_TYPE_BF16 ? 2 : 4;
    size_t panel = 0;
    while (panel < panels) {
        size_t taken = 1;
        if (rows == 1 && panels - panel >= 2 && one.columns >= 2 * CK_PANEL_COLUMNS) {
            taken = 2;
            if (type == CK_TYPE_BF16) {
                two_panels_bf16(&one);
            } else {
                two_panels_f32(&one);
            }
        } else {
            ck_tile part = one;
            // Seven to twelve rows go as two groups, the weights still being in the first cache for the second.
            for (size_t row = 0; row < rows;) {
                const size_t left = rows - row;
                const size_t height = left > 6 ? (left + 1) / 2 : left;
                run_one(&part, height, type);
                part.x += height;
                part.y += height * part.y_stride;
                row += height;
            }
        }
        one.panels = (const char *)one.panels + taken * one.panel_stride * element;
        one.y += taken * CK_PANEL_COLUMNS;
        one.columns -= taken * CK_PANEL_COLUMNS;
        panel += taken;
    }
}

#endif
