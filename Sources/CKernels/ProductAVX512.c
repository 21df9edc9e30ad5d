// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx2,fma")))
#define UNROLL _Pragma("clang loop unroll(full)")
/// Unrolled by the compiler, the loop of prefetches takes registers from the sums.
#define AS_IT_IS _Pragma("clang loop unroll(disable)")

/// How far ahead a pass calls weights from the second-level cache.
#define NEAR_BYTES 1024

/// Loads a panel's columns of an input, or its first half, into one register for every sixteen.
///
/// A whole panel of bfloat16 is widened by a shift and a mask, for the multiply-adds wait for no more than two operations
/// then: the first register has the even columns, the second the odd ones.
CK_INLINE TARGET void load_columns(const char *at, __m512 columns[2], const int vectors, const int bf16) {
    if (!bf16) {
        columns[0] = _mm512_loadu_ps(at);
        if (vectors == 2) {
            columns[1] = _mm512_loadu_ps(at + 64);
        }
    } else if (vectors == 2) {
        const __m512i narrow = _mm512_loadu_si512(at);
        columns[0] = _mm512_castsi512_ps(_mm512_slli_epi32(narrow, 16));
        columns[1] = _mm512_castsi512_ps(_mm512_and_si512(narrow, _mm512_set1_epi32((int)0xFFFF0000)));
    } else {
        const __m256i narrow = _mm256_loadu_si256((const __m256i *)at);
        columns[0] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
    }
}

/// Thirty-two sums from memory's order into that of `load_columns`.
CK_INLINE TARGET void part(__m512 sums[2]) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    const __m512 first = _mm512_permutex2var_ps(sums[0], even, sums[1]);
    sums[1] = _mm512_permutex2var_ps(sums[0], odd, sums[1]);
    sums[0] = first;
}

/// And back.
CK_INLINE TARGET void join(__m512 sums[2]) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    const __m512 first = _mm512_permutex2var_ps(sums[0], low, sums[1]);
    sums[1] = _mm512_permutex2var_ps(sums[0], high, sums[1]);
    sums[0] = first;
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

/// What the weights of a pass are.
enum {
    F32,
    BF16,
    /// bfloat16 that the pass leaves in float32 for the next ones.
    WIDENING,
    /// What it left: the even columns, then the odd ones.
    WIDENED,
};

CK_INLINE int is_narrow(int form) { return form == BF16 || form == WIDENING; }

/// Adds the products of input `which`, counted from the current pointers.
CK_INLINE TARGET void add_input(__m512 sums[CK_MAX_TILE_ROWS][8], const char *const weights[4], const float *x,
                                float *widened, const int rows, const int panels, const int vectors, const int form,
                                const int which) {
    const int element = is_narrow(form) ? 2 : 4;
    __m512 columns[4][2];
    UNROLL for (int p = 0; p < panels; p++) {
        load_columns(weights[p] + which * CK_PANEL_COLUMNS * element, columns[p], vectors, is_narrow(form));
    }
    if (form == WIDENING) {
        _mm512_storeu_ps(widened + which * CK_PANEL_COLUMNS, columns[0][0]);
        _mm512_storeu_ps(widened + which * CK_PANEL_COLUMNS + 16, columns[0][1]);
    }
    UNROLL for (int r = 0; r < rows; r++) {
        const __m512 value = _mm512_set1_ps(x[which * rows + r]);
        UNROLL for (int p = 0; p < panels; p++) {
            UNROLL for (int v = 0; v < vectors; v++) {
                sums[r][p * vectors + v] = _mm512_fmadd_ps(value, columns[p][v], sums[r][p * vectors + v]);
            }
        }
    }
}

/// `rows` rows by `panels` panels, or by the first sixteen columns of one, with all sums in registers. The arguments after
/// `tile` are constants at each call, so that the arrays dissolve into registers.
CK_INLINE TARGET void tile_512(const ck_tile *tile, const int rows, const int panels, const int vectors,
                               const int form) {
    __m512 sums[CK_MAX_TILE_ROWS][8];
    const char *weights[4];
    const float *x = tile->x;
    float *widened = tile->widened;
    const int bf16 = is_narrow(form);
    // Sums lie in the order of the columns while the pass runs.
    const int parted = form != F32 && vectors == 2;
    const size_t element = bf16 ? 2 : 4;
    const size_t apart = tile->panel_stride * element;
    const char *ahead = tile->ahead;
    const size_t ahead_step = tile->ahead_step;
    // Bytes between the lines of one panel that the pass reads.
    const int lines_apart = bf16 || vectors == 2 ? 64 : 128;
    const size_t ahead_lines = tile->ahead_lines;
    const size_t ahead_apart = tile->ahead_apart;

    UNROLL for (int p = 0; p < panels; p++) {
        weights[p] = (const char *)tile->panels + (size_t)p * apart;
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < panels * vectors; v++) {
            sums[r][v] = tile->from ? _mm512_loadu_ps(tile->from + (size_t)r * tile->from_stride + v * 16)
                                    : _mm512_setzero_ps();
        }
        UNROLL for (int v = 0; parted && v < panels * 2; v += 2) {
            part(sums[r] + v);
        }
    }
    for (size_t fours = tile->inputs / 4; fours > 0; fours--) {
        AS_IT_IS for (size_t line = 0; line < ahead_lines; line++) {
            UNROLL for (int p = 0; p < panels; p++) {
                prefetch(ahead + (size_t)p * apart + line * ahead_apart, panels == 1 || bf16);
            }
        }
        ahead += ahead_step;
        // What came long before it is used has gone on to the second-level cache.
        UNROLL for (int at = 0; panels == 1 && at < 4 * CK_PANEL_COLUMNS * (int)element; at += lines_apart) {
            _mm_prefetch(weights[0] + NEAR_BYTES + at, _MM_HINT_T0);
        }
        UNROLL for (int which = 0; which < 4; which++) {
            add_input(sums, weights, x, widened, rows, panels, vectors, form, which);
        }
        UNROLL for (int p = 0; p < panels; p++) {
            weights[p] += 4 * CK_PANEL_COLUMNS * element;
        }
        if (form == WIDENING) {
            widened += 4 * CK_PANEL_COLUMNS;
        }
        x += 4 * rows;
    }
    for (size_t rest = tile->inputs % 4; rest > 0; rest--) {
        add_input(sums, weights, x, widened, rows, panels, vectors, form, 0);
        UNROLL for (int p = 0; p < panels; p++) {
            weights[p] += CK_PANEL_COLUMNS * element;
        }
        if (form == WIDENING) {
            widened += CK_PANEL_COLUMNS;
        }
        x += rows;
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; parted && v < panels * 2; v += 2) {
            join(sums[r] + v);
        }
        UNROLL for (int v = 0; v < panels * vectors; v++) {
            __m512 sum = sums[r][v];
            if (tile->relu) {
                // The second operand wins where either is NaN, so NaN passes through.
                sum = _mm512_max_ps(_mm512_setzero_ps(), sum);
            }
            _mm512_storeu_ps(tile->to + (size_t)r * tile->to_stride + v * 16, sum);
        }
    }
}

#define ROWS_CASE(n, panels, vectors)                                                                                  \
    case n:                                                                                                            \
        tile_512(tile, n, panels, vectors, form);                                                                      \
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

CK_INLINE TARGET void run(const ck_tile *tile, size_t rows, size_t panels, const int form) {
    if (panels == 4) {
        tile_512(tile, 1, 4, 2, form);
    } else if (panels == 2) {
        switch (rows) {
            ROWS_CASE(1, 2, 2)
            ROWS_CASE(2, 2, 2)
            ROWS_CASE(3, 2, 2)
            ROWS_CASE(4, 2, 2)
        }
    } else if (panels == 1) {
        switch (rows) { ALL_ROWS(2) }
    } else {
        switch (rows) { ALL_ROWS(1) }
    }
}

static TARGET void run_f32(const ck_tile *tile, size_t rows, size_t panels) { run(tile, rows, panels, F32); }
static TARGET void run_bf16(const ck_tile *tile, size_t rows, size_t panels) { run(tile, rows, panels, BF16); }

static TARGET void run_widening(const ck_tile *tile, size_t rows) {
    const int form = WIDENING;
    switch (rows) { ALL_ROWS(2) }
}

static TARGET void run_widened(const ck_tile *tile, size_t rows) {
    const int form = WIDENED;
    switch (rows) { ALL_ROWS(2) }
}

void ck_tile_avx512(const ck_tile *tile, size_t rows, size_t panels, int type) {
    if (type != CK_TYPE_BF16) {
        run_f32(tile, rows, panels);
    } else if (tile->widened) {
        run_widening(tile, rows);
    } else if (tile->is_widened) {
        run_widened(tile, rows);
    } else {
        run_bf16(tile, rows, panels);
    }
}

#endif
