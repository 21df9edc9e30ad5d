// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#define UNROLL _Pragma("clang loop unroll(full)")

/// Rows that fit into the registers with half a panel: 24 sums of four columns.
#define MOST_ROWS 6

CK_INLINE float32x4_t load_weights(const char *weights, size_t index, int bf16) {
    if (bf16) {
        return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16((const uint16_t *)weights + index), 16));
    }
    return vld1q_f32((const float *)weights + index);
}

CK_INLINE float32x4_t rectified(float32x4_t sum, int relu) {
    // A comparison with NaN fails, so NaN passes through.
    const float32x4_t zero = vdupq_n_f32(0);
    return relu ? vbslq_f32(vcltq_f32(sum, zero), zero, sum) : sum;
}

/// `rows` rows by `vectors` runs of four columns, from the first column on; 16 runs cross into the second panel. The arguments
/// after `tile` are constants at each call, so that the arrays dissolve into registers.
CK_INLINE void tile_neon(const ck_tile *tile, const int rows, const int vectors, const int bf16) {
    float32x4_t sums[MOST_ROWS][16];
    const float *x = tile->x;
    const size_t element = bf16 ? 2 : 4;
    const size_t second = (tile->panel_stride - CK_PANEL_COLUMNS) * element;
    const char *at = tile->panels;
    const char *ahead = tile->ahead;

    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) {
            sums[r][v] = tile->from ? vld1q_f32(tile->from + (size_t)r * tile->from_stride + v * 4) : vdupq_n_f32(0);
        }
    }
    for (size_t k = 0; k < tile->inputs; k++) {
        if (k % 4 == 0) {
            for (size_t line = 0; line < tile->ahead_lines; line++) {
                __builtin_prefetch(ahead + line * tile->ahead_apart);
                if (vectors == 16) {
                    __builtin_prefetch(ahead + tile->panel_stride * element + line * tile->ahead_apart);
                }
            }
            ahead += tile->ahead_step;
        }
        float32x4_t values[MOST_ROWS];
        UNROLL for (int r = 0; r < rows; r++) {
            values[r] = vdupq_n_f32(x[r]);
        }
        UNROLL for (int v = 0; v < vectors; v++) {
            const float32x4_t column = load_weights(v < 8 ? at : at + second, (size_t)v * 4, bf16);
            UNROLL for (int r = 0; r < rows; r++) {
                sums[r][v] = vfmaq_f32(sums[r][v], values[r], column);
            }
        }
        x += rows;
        at += CK_PANEL_COLUMNS * element;
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) {
            vst1q_f32(tile->to + (size_t)r * tile->to_stride + v * 4, rectified(sums[r][v], tile->relu));
        }
    }
}

#define ROWS_CASE(n, vectors)                                                                                          \
    case n:                                                                                                            \
        tile_neon(tile, n, vectors, bf16);                                                                             \
        break;

CK_INLINE void run(const ck_tile *tile, size_t rows, size_t panels, const int bf16) {
    if (panels == 2) {
        tile_neon(tile, 1, 16, bf16);
    } else if (panels == 1) {
        switch (rows) {
            ROWS_CASE(1, 8)
            ROWS_CASE(2, 8)
        }
    } else {
        switch (rows) {
            ROWS_CASE(1, 4)
            ROWS_CASE(2, 4)
            ROWS_CASE(3, 4)
            ROWS_CASE(4, 4)
            ROWS_CASE(5, 4)
            ROWS_CASE(6, 4)
        }
    }
}

static void run_f32(const ck_tile *tile, size_t rows, size_t panels) { run(tile, rows, panels, 0); }
static void run_bf16(const ck_tile *tile, size_t rows, size_t panels) { run(tile, rows, panels, 1); }

void ck_tile_neon(const ck_tile *tile, size_t rows, size_t panels, int type) {
    if (type == CK_TYPE_BF16) {
        run_bf16(tile, rows, panels);
    } else {
        run_f32(tile, rows, panels);
    }
}

#endif
