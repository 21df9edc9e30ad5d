// SPDX-License-Identifier: Apache-2.0

#include "Int8.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

int ck_int8_kernel(int level) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX512) {
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512vl")) {
            return CK_INT8_VNNI;
        }
    }
    if (level >= CK_LEVEL_AVX2) {
        return CK_INT8_AVX2;
    }
#endif
#if defined(__aarch64__)
    if (level == CK_LEVEL_NEON) {
#if defined(__ARM_FEATURE_DOTPROD)
        return CK_INT8_DOT;
#elif defined(__linux__)
        // HWCAP_ASIMDDP, which old headers lack.
        return getauxval(AT_HWCAP) & (1ul << 20) ? CK_INT8_DOT : CK_INT8_NEON;
#else
        return CK_INT8_NEON;
#endif
    }
#endif
    (void)level;
    return CK_INT8_SCALAR;
}

static ck_int8_tile_function tile_function(int kernel) {
    switch (kernel) {
#if defined(__x86_64__)
    case CK_INT8_VNNI:
        return ck_int8_tile_vnni;
    case CK_INT8_AVX2:
        return ck_int8_tile_avx2;
#endif
#if defined(__aarch64__)
    case CK_INT8_DOT:
        return ck_int8_tile_dot;
    case CK_INT8_NEON:
        return ck_int8_tile_neon;
#endif
    default:
        return ck_int8_tile_scalar;
    }
}

// MARK: - Activations

CK_INLINE void quantize(const float *x, size_t inputs, uint8_t *q, float *scale) {
    const ck_int8_quantum quantum = ck_int8_quantum_of(ck_int8_magnitude(x, inputs, 0));
    // Where the scale is NaN, the written value does not matter.
    for (size_t k = 0; k < inputs; k++) {
        q[k] = ck_int8_round(x[k], quantum.inverse);
    }
    memset(q + inputs, 0, ck_int8_groups(inputs) * CK_INT8_GROUP - inputs);
    *scale = quantum.scale;
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static void quantize_vnni(const float *x, size_t inputs, uint8_t *q, float *scale) {
    const ck_int8_quantum quantum = ck_int8_quantum_of(ck_int8_magnitude(x, inputs, 0));
    ck_int8_quantize_vnni(x, inputs, quantum.inverse, q);
    memset(q + inputs, 0x80, ck_int8_groups(inputs) * CK_INT8_GROUP - inputs);
    *scale = quantum.scale;
}

__attribute__((target("avx2,fma"))) static void quantize_avx2(const float *x, size_t inputs, uint8_t *q,
                                                              float *scale) {
    quantize(x, inputs, q, scale);
}
#endif

void ck_quantize_rows(int level, const float *x, size_t x_stride, size_t inputs, size_t rows, void *q, size_t q_stride,
                      float *scales) {
    const int kernel = ck_int8_kernel(level);
    for (size_t row = 0; row < rows; row++) {
        const float *from = x + row * x_stride;
        uint8_t *to = (uint8_t *)q + row * q_stride;
        switch (kernel) {
#if defined(__x86_64__)
        case CK_INT8_VNNI:
            quantize_vnni(from, inputs, to, scales + row);
            break;
        case CK_INT8_AVX2:
            quantize_avx2(from, inputs, to, scales + row);
            break;
#endif
        default:
            quantize(from, inputs, to, scales + row);
            break;
        }
    }
}

// MARK: - The product

/// Panels that a tile of few rows computes at once, so that enough sums are in flight.
static size_t panels_at_once(size_t rows) {
    if (rows == 1) {
        return 4;
    }
    return rows <= 6 ? 2 : 1;
}

/// Bytes of panels that tall products go through while a tile's rows are at hand: they stay in the L2 cache.
#define BLOCK_BYTES ((size_t)256 << 10)

/// Rows from which a product counts as tall: computing with a panel then takes longer than reading it.
#define TALL_ROWS 49

void ck_product_int8(int level, const void *panels, const float *scales, const int32_t *compensation, size_t inputs,
                     size_t outputs, size_t panel_begin, size_t panel_end, const void *q, size_t q_stride,
                     const float *row_scales, size_t rows, float *y, size_t y_stride, int relu) {
    const ck_int8_tile_function run = tile_function(ck_int8_kernel(level));
    // Tiles of nearly equal height: 13 rows are 7 + 6 rather than 12 + 1.
    const size_t tiles = (rows + CK_INT8_TILE_ROWS - 1) / CK_INT8_TILE_ROWS;
    if (tiles == 0) {
        return;
    }
    const size_t least = rows / tiles;
    const size_t taller = rows % tiles;
    const size_t groups = ck_int8_groups(inputs);
    const size_t panel_bytes = groups * CK_INT8_GROUP_BYTES;
    const size_t fitting = BLOCK_BYTES / panel_bytes;
    const size_t block = tiles == 1 ? panels_at_once(rows) : rows < TALL_ROWS || fitting == 0 ? 1 : fitting;
    // While tall products compute, each tile prefetches its share of the next block.
    const size_t share = panel_bytes / tiles;

    size_t panel = panel_begin;
    while (panel < panel_end) {
        const size_t count = panel_end - panel < block ? panel_end - panel : block;
        const char *first = (const char *)panels + panel * panel_bytes;
        const char *ahead = first + count * panel_bytes;
        size_t row = 0;
        for (size_t index = 0; index < tiles; index++) {
            const size_t height = least + (index < taller ? 1 : 0);
            for (size_t step = 0; step < count; step += tiles == 1 ? count : 1) {
                const size_t column = (panel + step) * CK_PANEL_COLUMNS;
                const ck_int8_tile tile = {
                    .panels = first + step * panel_bytes,
                    .panel_bytes = panel_bytes,
                    .groups = groups,
                    .x = (const char *)q + row * q_stride,
                    .x_stride = q_stride,
                    .row_scales = row_scales + row,
                    .scales = scales + column,
                    .compensation = compensation + column,
                    .y = y + row * y_stride + column,
                    .y_stride = y_stride,
                    .columns = outputs - column,
                    .relu = relu,
                    .ahead = tiles == 1 ? 0 : ahead,
                    .ahead_step = (CK_INT8_GROUP_BYTES + tiles - 1) / tiles,
                };
                run(&tile, height, tiles == 1 ? count : 1);
                ahead += share;
            }
            row += height;
        }
        panel += count;
    }
}

// MARK: - The reference

void ck_int8_tile_scalar(const ck_int8_tile *tile, size_t rows, size_t panels) {
    for (size_t panel = 0; panel < panels; panel++) {
        const int8_t *weights = (const int8_t *)tile->panels + panel * tile->panel_bytes;
        const size_t first = panel * CK_PANEL_COLUMNS;
        const size_t left = tile->columns - first;
        const size_t width = left < CK_PANEL_COLUMNS ? left : CK_PANEL_COLUMNS;
        for (size_t row = 0; row < rows; row++) {
            const int8_t *x = (const int8_t *)tile->x + row * tile->x_stride;
            float *y = tile->y + row * tile->y_stride + first;
            int32_t sums[CK_PANEL_COLUMNS] = {0};
            for (size_t group = 0; group < tile->groups; group++) {
                const int8_t *at = weights + group * CK_INT8_GROUP_BYTES;
                for (size_t c = 0; c < CK_PANEL_COLUMNS; c++) {
                    for (size_t k = 0; k < CK_INT8_GROUP; k++) {
                        sums[c] += (int32_t)x[group * CK_INT8_GROUP + k] * at[c * CK_INT8_GROUP + k];
                    }
                }
            }
            for (size_t c = 0; c < width; c++) {
                y[c] = ck_int8_result(sums[c], tile->row_scales[row], tile->scales[first + c], tile->relu);
            }
        }
    }
}
