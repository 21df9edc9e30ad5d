// SPDX-License-Identifier: Apache-2.0

#include "Int8.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")))
#define UNROLL _Pragma("clang loop unroll(full)")

CK_INLINE TARGET __m512i broadcast(const char *x) {
    int32_t group;
    memcpy(&group, x, sizeof group);
    return _mm512_set1_epi32(group);
}

CK_INLINE TARGET __m512i round_to_int32(const float *x, __m512 inverse) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), inverse));
}

/// Quantises as `ck_int8_round` does, which rounds to nearest even by an addition: conversions round alike.
TARGET void ck_int8_quantize_vnni(const float *x, size_t count, float inverse, uint8_t *q) {
    const __m512 factor = _mm512_set1_ps(inverse);
    // Packing goes by 128-bit lanes: four inputs of each of the four sources.
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    size_t k = 0;
    for (; k + 64 <= count; k += 64) {
        const __m512i low = _mm512_packs_epi32(round_to_int32(x + k, factor), round_to_int32(x + k + 16, factor));
        const __m512i high = _mm512_packs_epi32(round_to_int32(x + k + 32, factor), round_to_int32(x + k + 48, factor));
        const __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
        _mm512_storeu_si512(q + k, _mm512_xor_si512(bytes, _mm512_set1_epi8((char)0x80)));
    }
    for (; k < count; k++) {
        q[k] = ck_int8_round(x[k], inverse) ^ 0x80;
    }
}

/// Adds the products of group `which` from the current pointers.
CK_INLINE TARGET void add_group(__m512i sums[CK_INT8_TILE_ROWS][8], const char *const weights[4],
                                const char *const x[CK_INT8_TILE_ROWS / 3], size_t x_stride, const int rows,
                                const int panels, const int which) {
    __m512i column[8];
    UNROLL for (int v = 0; v < panels * 2; v++) {
        column[v] = _mm512_loadu_si512(weights[v / 2] + which * (int)CK_INT8_GROUP_BYTES + v % 2 * 64);
    }
    UNROLL for (int r = 0; r < rows; r++) {
        const __m512i value = broadcast(x[r / 3] + (size_t)(r % 3) * x_stride + which * CK_INT8_GROUP);
        UNROLL for (int v = 0; v < panels * 2; v++) {
            sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], value, column[v]);
        }
    }
}

/// `rows` rows by `panels` panels with all sums in registers. The arguments after `tile` are constants at each call, so
/// that the arrays dissolve into registers; `far` says whether tile->ahead is given, for one panel.
///
/// vpdpbusd adds four products of an unsigned and a signed byte to an int32 without saturation. The activations are the
/// unsigned ones, 128 too high; the sums start 128 times the weights' sums too low, so they end exact, whatever
/// wraps around in between.
CK_INLINE TARGET void tile_vnni(const ck_int8_tile *tile, const int rows, const int panels, const int far) {
    __m512i sums[CK_INT8_TILE_ROWS][8];
    const char *weights[4];
    const char *ahead[4];
    // One pointer for every three rows, the other two being one and two strides on: twelve would not fit into
    // registers.
    const char *x[CK_INT8_TILE_ROWS / 3];
    const int vectors = panels * 2;
    const size_t x_stride = tile->x_stride;

    UNROLL for (int p = 0; p < panels; p++) {
        weights[p] = tile->panels + (size_t)p * tile->panel_bytes;
        ahead[p] = far ? tile->ahead : weights[p] + CK_INT8_PREFETCH_BYTES;
    }
    UNROLL for (int r = 0; r < rows; r += 3) {
        x[r / 3] = tile->x + (size_t)r * x_stride;
    }
    UNROLL for (int v = 0; v < vectors; v++) {
        const __m512i start = _mm512_loadu_si512(tile->compensation + v * 16);
        UNROLL for (int r = 0; r < rows; r++) {
            sums[r][v] = start;
        }
    }
    const size_t ahead_step = far ? 2 * tile->ahead_step : 2 * CK_INT8_GROUP_BYTES;
    // Pairs of groups after which the page ahead is no longer this panel's: it is then that of the panel that comes
    // next on this panel's way through the tiles.
    const size_t all = tile->groups / 2;
    const size_t page = CK_INT8_PREFETCH_BYTES / CK_INT8_GROUP_BYTES / 2;
    size_t pairs = far ? all : all > page ? all - page : 0;
    for (int part = 0; part < (far ? 1 : 2); part++) {
        for (size_t pair = pairs; pair > 0; pair--) {
            UNROLL for (int p = 0; p < panels; p++) {
                UNROLL for (int line = 0; line < (far ? 2 : 4); line++) {
                    _mm_prefetch(ahead[p] + line * 64, _MM_HINT_T0);
                }
                ahead[p] += ahead_step;
            }
            add_group(sums, weights, x, x_stride, rows, panels, 0);
            add_group(sums, weights, x, x_stride, rows, panels, 1);
            UNROLL for (int p = 0; p < panels; p++) {
                weights[p] += 2 * CK_INT8_GROUP_BYTES;
            }
            UNROLL for (int r = 0; r < rows; r += 3) {
                x[r / 3] += 2 * CK_INT8_GROUP;
                // Otherwise the compiler makes one pointer of them again, and adds its way from row to row.
                __asm__("" : "+r"(x[r / 3]));
            }
        }
        pairs = all - pairs;
        UNROLL for (int p = 0; p < panels; p++) {
            ahead[p] += (size_t)(panels - 1) * tile->panel_bytes;
        }
    }
    if (tile->groups % 2 == 1) {
        add_group(sums, weights, x, x_stride, rows, panels, 0);
    }
    UNROLL for (int v = 0; v < vectors; v++) {
        const size_t first = (size_t)v * 16;
        const size_t left = tile->columns > first ? tile->columns - first : 0;
        const __mmask16 mask = left >= 16 ? (__mmask16)0xFFFF : (__mmask16)((1u << left) - 1);
        const __m512 scale = _mm512_loadu_ps(tile->scales + first);
        UNROLL for (int r = 0; r < rows; r++) {
            const __m512 factor = _mm512_mul_ps(_mm512_set1_ps(tile->row_scales[r]), scale);
            __m512 result = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][v]), factor);
            if (tile->relu) {
                // The second operand wins where either is NaN, so NaN passes through.
                result = _mm512_max_ps(_mm512_setzero_ps(), result);
            }
            _mm512_mask_storeu_ps(tile->y + (size_t)r * tile->y_stride + first, mask, result);
        }
    }
}

#define ROWS_CASE(n, p, far)                                                                                           \
    case n:                                                                                                            \
        tile_vnni(tile, n, p, far);                                                                                    \
        break;

static TARGET void four_panels(const ck_int8_tile *tile) { tile_vnni(tile, 1, 4, 0); }

static TARGET void two_panels(const ck_int8_tile *tile, size_t rows) {
    switch (rows) {
        ROWS_CASE(1, 2, 0)
        ROWS_CASE(2, 2, 0)
        ROWS_CASE(3, 2, 0)
        ROWS_CASE(4, 2, 0)
        ROWS_CASE(5, 2, 0)
        ROWS_CASE(6, 2, 0)
    }
}

static TARGET void one_panel(const ck_int8_tile *tile, size_t rows) {
    switch (rows) {
        ROWS_CASE(1, 1, 0)
        ROWS_CASE(2, 1, 0)
        ROWS_CASE(3, 1, 0)
        ROWS_CASE(4, 1, 0)
        ROWS_CASE(5, 1, 0)
        ROWS_CASE(6, 1, 0)
        ROWS_CASE(7, 1, 0)
        ROWS_CASE(8, 1, 0)
        ROWS_CASE(9, 1, 0)
        ROWS_CASE(10, 1, 0)
        ROWS_CASE(11, 1, 0)
        ROWS_CASE(12, 1, 0)
    }
}

/// A tile of a product with several of them, which have at least half of the most rows.
static TARGET void one_panel_far(const ck_int8_tile *tile, size_t rows) {
    switch (rows) {
        ROWS_CASE(6, 1, 1)
        ROWS_CASE(7, 1, 1)
        ROWS_CASE(8, 1, 1)
        ROWS_CASE(9, 1, 1)
        ROWS_CASE(10, 1, 1)
        ROWS_CASE(11, 1, 1)
        ROWS_CASE(12, 1, 1)
    }
}

void ck_int8_tile_vnni(const ck_int8_tile *tile, size_t rows, size_t panels) {
    if (tile->ahead) {
        one_panel_far(tile, rows);
        return;
    }
    if (panels == 4 && rows == 1) {
        four_panels(tile);
        return;
    }
    if (panels == 2 && rows <= 6) {
        two_panels(tile, rows);
        return;
    }
    ck_int8_tile one = *tile;
    for (size_t panel = 0; panel < panels; panel++) {
        one_panel(&one, rows);
        one.panels += one.panel_bytes;
        one.scales += CK_PANEL_COLUMNS;
        one.compensation += CK_PANEL_COLUMNS;
        one.y += CK_PANEL_COLUMNS;
        one.columns -= CK_PANEL_COLUMNS;
    }
}

#endif
