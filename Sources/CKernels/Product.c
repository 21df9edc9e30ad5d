// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

int ck_best_level(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return __builtin_cpu_supports("avx512f") ? CK_LEVEL_AVX512 : CK_LEVEL_AVX2;
    }
#endif
#if defined(__aarch64__)
    return CK_LEVEL_NEON;
#else
    return CK_LEVEL_SCALAR;
#endif
}

int ck_has_level(int level) {
#if defined(__aarch64__)
    return level == CK_LEVEL_SCALAR || level == CK_LEVEL_NEON;
#else
    return level >= CK_LEVEL_SCALAR && level <= ck_best_level();
#endif
}

static ck_tile_function tile_function(int level) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX512) {
        return ck_tile_avx512;
    }
    if (level >= CK_LEVEL_AVX2) {
        return ck_tile_avx2;
    }
#endif
#if defined(__aarch64__)
    if (level == CK_LEVEL_NEON) {
        return ck_tile_neon;
    }
#endif
    (void)level;
    return ck_tile_scalar;
}

/// Panels that a tile of few rows takes at once: a multiply-add has a latency of four cycles and two start in each, so
/// fewer than eight chains in flight would leave the units idle.
static size_t panels_at_once(size_t rows) {
    if (rows == 1) {
        return 4;
    }
    return rows <= 3 ? 2 : 1;
}

void ck_product(int level, const void *panels, int type, size_t inputs, size_t outputs, size_t panel_begin,
                size_t panel_end, const float *x, size_t x_stride, size_t rows, float *y, size_t y_stride, int relu) {
    const ck_tile_function run = tile_function(level);
    const size_t element = type == CK_TYPE_BF16 ? 2 : 4;
    // Tiles of nearly equal height: 13 rows are 7 + 6 rather than 12 + 1.
    const size_t tiles = (rows + CK_MAX_TILE_ROWS - 1) / CK_MAX_TILE_ROWS;
    if (tiles == 0) {
        return;
    }
    const size_t least = rows / tiles;
    const size_t taller = rows % tiles;
    const size_t block = tiles > 1 ? CK_INPUT_BLOCK : inputs;

    size_t panel = panel_begin;
    while (panel < panel_end) {
        const size_t wanted = panels_at_once(least);
        const size_t count = panel_end - panel < wanted ? panel_end - panel : wanted;
        size_t begin = 0;
        do {
            const size_t length = inputs - begin < block ? inputs - begin : block;
            size_t row = 0;
            for (size_t index = 0; index < tiles; index++) {
                const size_t height = least + (index < taller ? 1 : 0);
                const ck_tile tile = {
                    .panels = (const char *)panels + (panel * inputs + begin) * CK_PANEL_COLUMNS * element,
                    .panel_stride = inputs * CK_PANEL_COLUMNS,
                    .inputs = length,
                    .x = x + row * x_stride + begin,
                    .x_stride = x_stride,
                    .y = y + row * y_stride + panel * CK_PANEL_COLUMNS,
                    .y_stride = y_stride,
                    .columns = outputs - panel * CK_PANEL_COLUMNS,
                    .accumulate = begin > 0,
                    .relu = relu && begin + length == inputs,
                };
                run(&tile, height, count, type);
                row += height;
            }
            begin += length;
        } while (begin < inputs);
        panel += count;
    }
}
