// SPDX-License-Identifier: Apache-2.0

#include "Int8.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#define DOT __attribute__((target("dotprod")))
#define UNROLL _Pragma("clang loop unroll(full)")

CK_INLINE int8x16_t broadcast(const char *x) {
    int32_t group;
    memcpy(&group, x, sizeof group);
    return vreinterpretq_s8_s32(vdupq_n_s32(group));
}

/// Four columns' products with one group of inputs, without the dot product: two products of at most 127 * 127 fit
/// into 16 bits.
CK_INLINE int32x4_t widening(int32x4_t sums, int8x16_t weights, int8x16_t x) {
    const int16x8_t low = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
    const int16x8_t high = vmull_high_s8(weights, x);
    return vpadalq_s16(sums, vpaddq_s16(low, high));
}

CK_INLINE void store(const ck_int8_tile *tile, int row, size_t column, int32x4_t sums) {
    const float32x4_t zero = vdupq_n_f32(0);
    const float32x4_t factor = vmulq_f32(vdupq_n_f32(tile->row_scales[row]), vld1q_f32(tile->scales + column));
    float32x4_t result = vmulq_f32(vcvtq_f32_s32(sums), factor);
    if (tile->relu) {
        // A comparison with NaN fails, so NaN passes through.
        result = vbslq_f32(vcltq_f32(result, zero), zero, result);
    }
    vst1q_f32(tile->y + (size_t)row * tile->y_stride + column, result);
}

/// The body of a tile: `rows` rows by `vectors` runs of four columns, from column 4 * `first` of the panel on. `ADD`
/// adds one group's products. A macro, since a function may not be inlined into one of another target.
#define TILE(ADD)                                                                                                      \
    int32x4_t sums[6][8];                                                                                              \
    const char *x[6];                                                                                                  \
    const char *weights = tile->panels + (size_t)first * 16;                                                           \
    UNROLL for (int r = 0; r < rows; r++) {                                                                            \
        x[r] = tile->x + (size_t)r * tile->x_stride;                                                                   \
        UNROLL for (int v = 0; v < vectors; v++) {                                                                     \
            sums[r][v] = vdupq_n_s32(0);                                                                               \
        }                                                                                                              \
    }                                                                                                                  \
    for (size_t group = 0; group < tile->groups; group++) {                                                            \
        const char *at = weights + group * CK_INT8_GROUP_BYTES;                                                        \
        __builtin_prefetch(tile->ahead ? tile->ahead + group * tile->ahead_step : at + CK_INT8_PREFETCH_BYTES);        \
        int8x16_t values[6];                                                                                           \
        UNROLL for (int r = 0; r < rows; r++) {                                                                        \
            values[r] = broadcast(x[r] + group * CK_INT8_GROUP);                                                       \
        }                                                                                                              \
        UNROLL for (int v = 0; v < vectors; v++) {                                                                     \
            const int8x16_t column = vld1q_s8((const int8_t *)at + v * 16);                                            \
            UNROLL for (int r = 0; r < rows; r++) {                                                                    \
                sums[r][v] = ADD(sums[r][v], column, values[r]);                                                       \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    UNROLL for (int r = 0; r < rows; r++) {                                                                            \
        UNROLL for (int v = 0; v < vectors; v++) {                                                                     \
            store(tile, r, (size_t)(first + v) * 4, sums[r][v]);                                                       \
        }                                                                                                              \
    }

CK_INLINE void tile_widening(const ck_int8_tile *tile, const int rows, const int first, const int vectors) {
    TILE(widening)
}

CK_INLINE DOT void tile_dot(const ck_int8_tile *tile, const int rows, const int first, const int vectors) {
    TILE(vdotq_s32)
}

#define WHOLE_CASE(tile_function, n)                                                                                   \
    case n:                                                                                                            \
        tile_function(tile, n, 0, 8);                                                                                  \
        break;

#define HALVES_CASE(tile_function, n)                                                                                  \
    case n:                                                                                                            \
        tile_function(tile, n, 0, 4);                                                                                  \
        tile_function(tile, n, 4, 4);                                                                                  \
        break;

#define PANEL(tile_function)                                                                                           \
    switch (rows) {                                                                                                    \
        WHOLE_CASE(tile_function, 1)                                                                                   \
        WHOLE_CASE(tile_function, 2)                                                                                   \
        HALVES_CASE(tile_function, 3)                                                                                  \
        HALVES_CASE(tile_function, 4)                                                                                  \
        HALVES_CASE(tile_function, 5)                                                                                  \
        HALVES_CASE(tile_function, 6)                                                                                  \
    }

static void panel_widening(const ck_int8_tile *tile, size_t rows) { PANEL(tile_widening) }

static DOT void panel_dot(const ck_int8_tile *tile, size_t rows) { PANEL(tile_dot) }

void ck_int8_tile_neon(const ck_int8_tile *tile, size_t rows, size_t panels) {
    ck_int8_by_panels(tile, rows, panels, 6, panel_widening);
}

void ck_int8_tile_dot(const ck_int8_tile *tile, size_t rows, size_t panels) {
    ck_int8_by_panels(tile, rows, panels, 6, panel_dot);
}

#endif
