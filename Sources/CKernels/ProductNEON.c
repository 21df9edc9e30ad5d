// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#define UNROLL _Pragma("clang loop unroll(full)")

/// How far ahead of the multiply-adds the weights are prefetched, in bytes of one panel.
#define PREFETCH_BYTES 2048

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

/// `rows` rows by `vectors` runs of four columns, from column 4 * `first` of the first panel on; 16 runs cross into the
/// second panel. The arguments after `tile` are constants at each call, so that the arrays dissolve into registers.
CK_INLINE void tile_neon(const ck_tile *tile, const int rows, const int first, const int vectors, const int bf16) {
    float32x4_t sums[MOST_ROWS][16];
    const float *x = tile->x;
    const size_t element = bf16 ? 2 : 4;
    const size_t second = (tile->panel_stride - CK_PANEL_COLUMNS) * element;
    const char *weights = (const char *)tile->panels + (size_t)first * 4 * element;

    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) {
            sums[r][v] = tile->accumulate ? vld1q_f32(tile->y + (size_t)r * tile->y_stride + (first + v) * 4)
                                          : vdupq_n_f32(0);
        }
    }
    for (size_t k = 0; k < tile->inputs; k++) {
        const char *at = weights + k * CK_PANEL_COLUMNS * element;
        __builtin_prefetch(at + PREFETCH_BYTES);
        if (!bf16 && vectors >= 8) {
            __builtin_prefetch(at + PREFETCH_BYTES + 64);
        }
        if (vectors == 16) {
            __builtin_prefetch(at + second + PREFETCH_BYTES);
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
        x += tile->x_step;
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) {
            vst1q_f32(tile->y + (size_t)r * tile->y_stride + (first + v) * 4, rectified(sums[r][v], tile->relu));
        }
    }
}

#define HALVES_CASE(n)                                                                                                 \
    case n:                                                                                                            \
        tile_neon(tile, n, 0, 4, bf16);                                                                                \
        tile_neon(tile, n, 4, 4, bf16);                                                                                \
        break;

CK_INLINE void panel_neon(const ck_tile *tile, size_t rows, const int bf16) {
    switch (rows) {
    case 1:
        tile_neon(tile, 1, 0, 8, bf16);
        break;
    case 2:
        tile_neon(tile, 2, 0, 8, bf16);
        break;
        HALVES_CASE(3)
        HALVES_CASE(4)
        HALVES_CASE(5)
        HALVES_CASE(6)
    }
}

static void panel_f32(const ck_tile *tile, size_t rows) { panel_neon(tile, rows, 0); }
static void panel_bf16(const ck_tile *tile, size_t rows) { panel_neon(tile, rows, 1); }
static void two_panels_f32(const ck_tile *tile) { tile_neon(tile, 1, 0, 16, 0); }
static void two_panels_bf16(const ck_tile *tile) { tile_neon(tile, 1, 0, 16, 1); }

/// Up to six rows by one panel, the last panel's missing columns going to a spare buffer.
static void run_one(const ck_tile *tile, size_t rows, int type) {
    ck_tile one = *tile;
    float spare[MOST_ROWS * CK_PANEL_COLUMNS];
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

void ck_tile_neon(const ck_tile *tile, size_t rows, size_t panels, int type) {
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
            for (size_t row = 0; row < rows;) {
                const size_t left = rows - row;
                const size_t groups = (left + MOST_ROWS - 1) / MOST_ROWS;
                const size_t height = (left + groups - 1) / groups;
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
