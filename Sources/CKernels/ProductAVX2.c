// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define UNROLL _Pragma("clang loop unroll(full)")
/// Unrolled by the compiler, the loop of prefetches takes registers from the sums.
#define AS_IT_IS _Pragma("clang loop unroll(disable)")

/// Loads sixteen columns of an input into two registers.
///
/// bfloat16 is widened by interleaving with zeros, which runs beside the multiply-adds where shifts would take their
/// place. It goes by 128-bit lanes: the first register has columns 0 to 3 and 8 to 11, the second the others.
CK_INLINE TARGET void load_columns(const char *at, __m256 columns[2], int bf16) {
    if (bf16) {
        const __m256i narrow = _mm256_loadu_si256((const __m256i *)at);
        const __m256i zero = _mm256_setzero_si256();
        columns[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, narrow));
        columns[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, narrow));
    } else {
        columns[0] = _mm256_loadu_ps((const float *)at);
        columns[1] = _mm256_loadu_ps((const float *)at + 8);
    }
}

/// Sixteen sums between memory's order and that of `load_columns`: the exchange is its own inverse.
CK_INLINE TARGET void exchange(__m256 sums[2], int bf16) {
    if (bf16) {
        const __m256 low = _mm256_permute2f128_ps(sums[0], sums[1], 0x20);
        sums[1] = _mm256_permute2f128_ps(sums[0], sums[1], 0x31);
        sums[0] = low;
    }
}

/// Fetches a line into the first-level cache, or only into the second-level one. Requests for the latter alone may be dropped,
/// which costs least where the loads are close behind.
CK_INLINE TARGET void prefetch(const char *line, const int first_level) {
    if (first_level) {
        _mm_prefetch(line, _MM_HINT_T0);
    } else {
        _mm_prefetch(line, _MM_HINT_T1);
    }
}

/// Adds the products of input `which`, counted from the current pointers.
CK_INLINE TARGET void add_input(__m256 sums[6][8], const char *const weights[2], const float *x, const int rows,
                                const int panels, const int vectors, const int bf16, const int which) {
    const int element = bf16 ? 2 : 4;
    UNROLL for (int p = 0; p < panels; p++) {
        UNROLL for (int v = 0; v < vectors; v += 2) {
            __m256 columns[2];
            load_columns(weights[p] + (which * CK_PANEL_COLUMNS + v * 8) * element, columns, bf16);
            UNROLL for (int r = 0; r < rows; r++) {
                const __m256 value = _mm256_set1_ps(x[which * rows + r]);
                __m256 *sum = sums[r] + p * vectors + v;
                sum[0] = _mm256_fmadd_ps(value, columns[0], sum[0]);
                sum[1] = _mm256_fmadd_ps(value, columns[1], sum[1]);
            }
            // Otherwise the compiler loads what follows early, and has no register left for it.
            __asm__ volatile("" ::: "memory");
        }
    }
}

/// `rows` rows by `vectors` runs of eight columns of each of `panels` panels. The arguments after `tile` are constants at each
/// call, so that the arrays dissolve into the sixteen registers: twelve sums at most.
CK_INLINE TARGET void tile_256(const ck_tile *tile, const int rows, const int panels, const int vectors,
                               const int bf16) {
    __m256 sums[6][8];
    const size_t element = bf16 ? 2 : 4;
    const size_t apart = tile->panel_stride * element;
    const float *x = tile->x;
    const char *weights[2] = {tile->panels, (const char *)tile->panels + apart};
    const char *ahead = tile->ahead;
    const size_t ahead_step = tile->ahead_step;
    const size_t ahead_lines = tile->ahead_lines;
    const size_t ahead_apart = tile->ahead_apart;

    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < panels * vectors; v += 2) {
            if (tile->from) {
                const float *from = tile->from + (size_t)r * tile->from_stride + v * 8;
                sums[r][v] = _mm256_loadu_ps(from);
                sums[r][v + 1] = _mm256_loadu_ps(from + 8);
                exchange(sums[r] + v, bf16);
            } else {
                sums[r][v] = _mm256_setzero_ps();
                sums[r][v + 1] = _mm256_setzero_ps();
            }
        }
    }
    for (size_t fours = tile->inputs / 4; fours > 0; fours--) {
        AS_IT_IS for (size_t line = 0; line < ahead_lines; line++) {
            UNROLL for (int p = 0; p < panels; p++) {
                prefetch(ahead + (size_t)p * apart + line * ahead_apart, vectors == 2);
            }
        }
        ahead += ahead_step;
        UNROLL for (int which = 0; which < 4; which++) {
            add_input(sums, weights, x, rows, panels, vectors, bf16, which);
        }
        UNROLL for (int p = 0; p < panels; p++) {
            weights[p] += 4 * CK_PANEL_COLUMNS * element;
        }
        x += 4 * rows;
    }
    for (size_t rest = tile->inputs % 4; rest > 0; rest--) {
        add_input(sums, weights, x, rows, panels, vectors, bf16, 0);
        UNROLL for (int p = 0; p < panels; p++) {
            weights[p] += CK_PANEL_COLUMNS * element;
        }
        x += rows;
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < panels * vectors; v += 2) {
            float *to = tile->to + (size_t)r * tile->to_stride + v * 8;
            exchange(sums[r] + v, bf16);
            UNROLL for (int i = 0; i < 2; i++) {
                __m256 sum = sums[r][v + i];
                if (tile->relu) {
                    // The second operand wins where either is NaN, so NaN passes through.
                    sum = _mm256_max_ps(_mm256_setzero_ps(), sum);
                }
                _mm256_storeu_ps(to + i * 8, sum);
            }
        }
    }
}

#define ROWS_CASE(n, panels, vectors)                                                                                  \
    case n:                                                                                                            \
        tile_256(tile, n, panels, vectors, bf16);                                                                      \
        break;

CK_INLINE TARGET void run(const ck_tile *tile, size_t rows, size_t panels, const int bf16) {
    if (panels == 2) {
        tile_256(tile, 1, 2, 4, bf16);
    } else if (panels == 1) {
        switch (rows) {
            ROWS_CASE(1, 1, 4)
            ROWS_CASE(2, 1, 4)
            ROWS_CASE(3, 1, 4)
        }
    } else {
        switch (rows) {
            ROWS_CASE(1, 1, 2)
            ROWS_CASE(2, 1, 2)
            ROWS_CASE(3, 1, 2)
            ROWS_CASE(4, 1, 2)
            ROWS_CASE(5, 1, 2)
            ROWS_CASE(6, 1, 2)
        }
    }
}

static TARGET void run_f32(const ck_tile *tile, size_t rows, size_t panels) { run(tile, rows, panels, 0); }
static TARGET void run_bf16(const ck_tile *tile, size_t rows, size_t panels) { run(tile, rows, panels, 1); }

void ck_tile_avx2(const ck_tile *tile, size_t rows, size_t panels, int type) {
    if (type == CK_TYPE_BF16) {
        run_bf16(tile, rows, panels);
    } else {
        run_f32(tile, rows, panels);
    }
}

#endif
