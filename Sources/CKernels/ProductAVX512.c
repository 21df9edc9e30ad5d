// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx2,fma")))
#define UNROLL _Pragma("clang loop unroll(full)")

/// How far ahead of the multiply-adds the weights are prefetched, in bytes of one panel: a page, past which the
/// processor does not prefetch by itself.
#define PREFETCH_BYTES 4096

CK_INLINE TARGET __m512 load_weights(const void *weights, size_t index, int bf16) {
    if (bf16) {
        const __m256i narrow = _mm256_loadu_si256((const __m256i *)((const uint16_t *)weights + index));
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
    }
    return _mm512_loadu_ps((const float *)weights + index);
}

/// `rows` rows by `panels` panels, or by the first sixteen columns of one, with all sums in registers. The arguments after
/// `tile` are constants at each call, so that the arrays dissolve into registers.
CK_INLINE TARGET void tile_512(const ck_tile *tile, const int rows, const int panels, const int vectors,
                               const int bf16) {
    __m512 sums[CK_MAX_TILE_ROWS][8];
    __mmask16 masks[8];
    const char *weights[4];
    const float *x = tile->x;
    const size_t element = bf16 ? 2 : 4;
    const size_t step = CK_PANEL_COLUMNS;

    UNROLL for (int v = 0; v < vectors; v++) {
        const size_t first = (size_t)v * 16;
        const size_t left = tile->columns > first ? tile->columns - first : 0;
        masks[v] = left >= 16 ? (__mmask16)0xFFFF : (__mmask16)((1u << left) - 1);
    }
    UNROLL for (int p = 0; p < panels; p++) {
        weights[p] = (const char *)tile->panels + (size_t)p * tile->panel_stride * element;
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) {
            sums[r][v] = tile->accumulate
                ? _mm512_maskz_loadu_ps(masks[v], tile->y + (size_t)r * tile->y_stride + v * 16)
                : _mm512_setzero_ps();
        }
    }
    for (size_t k = tile->inputs; k > 0; k--) {
        __m512 column[8];
        UNROLL for (int p = 0; p < panels; p++) {
            const char *at = weights[p];
            weights[p] += step * element;
            _mm_prefetch(at + PREFETCH_BYTES, _MM_HINT_T0);
            column[2 * p] = load_weights(at, 0, bf16);
            if (vectors > 1) {
                if (!bf16) {
                    _mm_prefetch(at + PREFETCH_BYTES + 64, _MM_HINT_T0);
                }
                column[2 * p + 1] = load_weights(at, 16, bf16);
            }
        }
        UNROLL for (int r = 0; r < rows; r++) {
            const __m512 value = _mm512_set1_ps(x[r]);
            UNROLL for (int v = 0; v < vectors; v++) {
                sums[r][v] = _mm512_fmadd_ps(value, column[v], sums[r][v]);
            }
        }
        x += rows;
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) {
            __m512 sum = sums[r][v];
            if (tile->relu) {
                // The second operand wins where either is NaN, so NaN passes through.
                sum = _mm512_max_ps(_mm512_setzero_ps(), sum);
            }
            _mm512_mask_storeu_ps(tile->y + (size_t)r * tile->y_stride + v * 16, masks[v], sum);
        }
    }
}

#define ROWS_CASE(n, panels, vectors)                                                                                  \
    case n:                                                                                                            \
        tile_512(tile, n, panels, vectors, bf16);                                                                      \
        break;

#define ALL_ROWS(vectors)                                                                                              \
    ROWS_CASE(1, 1, vectors)                                                                                           \
    ROWS_CASE(2, 1, vectors)                                                                                           \
    ROWS_CASE(3, 1, vectors)                                                                                           \
    ROWS_CASE(4, 1, vectors)                                                                                           \
    ROWS_CASE(5, 1, vectors)                                                                                           \
    ROWS_CASE(6, 1, vectors)                                                                                           \
    ROWS_CASE(7, 1, vectors)                                                                                           \
    ROWS_CASE(8, 1, vectors)                                                                                           \
    ROWS_CASE(9, 1, vectors)                                                                                           \
    ROWS_CASE(10, 1, vectors)                                                                                          \
    ROWS_CASE(11, 1, vectors)                                                                                          \
    ROWS_CASE(12, 1, vectors)

CK_INLINE TARGET void panel_512(const ck_tile *tile, size_t rows, size_t panels, const int bf16) {
    if (panels == 4 && rows == 1) {
        tile_512(tile, 1, 4, 8, bf16);
        return;
    }
    if (panels == 2 && rows <= 4) {
        switch (rows) {
            ROWS_CASE(1, 2, 4)
            ROWS_CASE(2, 2, 4)
            ROWS_CASE(3, 2, 4)
            ROWS_CASE(4, 2, 4)
        }
        return;
    }
    if (tile->columns <= 16) {
        switch (rows) { ALL_ROWS(1) }
        return;
    }
    switch (rows) { ALL_ROWS(2) }
}

static TARGET void panels_f32(const ck_tile *tile, size_t rows, size_t panels) { panel_512(tile, rows, panels, 0); }
static TARGET void panels_bf16(const ck_tile *tile, size_t rows, size_t panels) { panel_512(tile, rows, panels, 1); }

static void run(const ck_tile *tile, size_t rows, size_t panels, int type) {
    if (type == CK_TYPE_BF16) {
        panels_bf16(tile, rows, panels);
    } else {
        panels_f32(tile, rows, panels);
    }
}

void ck_tile_avx512(const ck_tile *tile, size_t rows, size_t panels, int type) {
    if ((panels == 4 && rows == 1) || (panels == 2 && rows <= 4) || panels == 1) {
        run(tile, rows, panels, type);
        return;
    }
    ck_tile one = *tile;
    for (size_t panel = 0; panel < panels; panel++) {
        run(&one, rows, 1, type);
        one.panels = (const char *)one.panels + one.panel_stride * (type == CK_TYPE_BF16 ? 2 : 4);
        one.y += CK_PANEL_COLUMNS;
        one.columns -= CK_PANEL_COLUMNS;
    }
}

#endif
