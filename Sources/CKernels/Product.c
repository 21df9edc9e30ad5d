// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

#include <stdlib.h>
#include <string.h>

static int processor_level(void) {
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

int ck_named_level(const char *name) {
    static const struct {
        const char *name;
        int level;
    } levels[] = {
        {"portable", CK_LEVEL_SCALAR},
        {"avx2", CK_LEVEL_AVX2},
        {"avx512", CK_LEVEL_AVX512},
        {"neon", CK_LEVEL_NEON},
    };
    for (size_t index = 0; index < sizeof levels / sizeof levels[0]; index++) {
        if (strcmp(name, levels[index].name) == 0) {
            return levels[index].level;
        }
    }
    return -1;
}

int ck_best_level(void) {
    const char *name = getenv(CK_LEVEL_VARIABLE);
    const int wanted = name == NULL ? -1 : ck_named_level(name);
    return wanted >= 0 && ck_has_level(wanted) ? wanted : processor_level();
}

int ck_has_level(int level) {
#if defined(__aarch64__)
    return level == CK_LEVEL_SCALAR || level == CK_LEVEL_NEON;
#else
    return level >= CK_LEVEL_SCALAR && level <= processor_level();
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

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void widen_avx2(const void *source, size_t count, float *destination) {
    ck_widen_bf16(source, count, destination);
}
#endif

/// Widens bfloat16 weights, and prefetches the next ones.
static void widen_slice(int level, const void *source, size_t count, float *destination) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        widen_avx2(source, count, destination);
        return;
    }
#endif
    (void)level;
    ck_widen_bf16(source, count, destination);
}

/// Heights of a product's tiles: nearly equal, so that 13 rows are 7 + 6 rather than 12 + 1.
typedef struct {
    size_t tiles;
    size_t least;
    /// How many tiles, the first ones, are one row taller.
    size_t taller;
} tile_plan;

static size_t height_of(const tile_plan *plan, size_t tile) { return plan->least + (tile < plan->taller ? 1 : 0); }

/// Four floats anywhere in memory.
typedef float four_floats __attribute__((vector_size(16), aligned(4)));

/// Lays four rows side by side: packed[k * step + r] = row r's input k.
static void interleave_four(const float *x, size_t x_stride, size_t inputs, float *packed, size_t step) {
    size_t k = 0;
    for (; k + 4 <= inputs; k += 4) {
        const four_floats a = *(const four_floats *)(x + k);
        const four_floats b = *(const four_floats *)(x + x_stride + k);
        const four_floats c = *(const four_floats *)(x + 2 * x_stride + k);
        const four_floats d = *(const four_floats *)(x + 3 * x_stride + k);
        const four_floats low_ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
        const four_floats high_ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
        const four_floats low_cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
        const four_floats high_cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
        float *target = packed + k * step;
        *(four_floats *)target = __builtin_shufflevector(low_ab, low_cd, 0, 1, 4, 5);
        *(four_floats *)(target + step) = __builtin_shufflevector(low_ab, low_cd, 2, 3, 6, 7);
        *(four_floats *)(target + 2 * step) = __builtin_shufflevector(high_ab, high_cd, 0, 1, 4, 5);
        *(four_floats *)(target + 3 * step) = __builtin_shufflevector(high_ab, high_cd, 2, 3, 6, 7);
    }
    for (; k < inputs; k++) {
        for (size_t row = 0; row < 4; row++) {
            packed[k * step + row] = x[row * x_stride + k];
        }
    }
}

/// Lays `height` rows side by side: the kernels then read one stream front to back, which is twice as fast as twelve.
static void interleave(const float *x, size_t x_stride, size_t height, size_t inputs, float *packed) {
    if (height < 4) {
        for (size_t row = 0; row < height; row++) {
            for (size_t k = 0; k < inputs; k++) {
                packed[k * height + row] = x[row * x_stride + k];
            }
        }
        return;
    }
    for (size_t row = 0; row < height; row += 4) {
        // The last four may be laid down in part for a second time.
        const size_t first = row + 4 <= height ? row : height - 4;
        interleave_four(x + first * x_stride, x_stride, inputs, packed + first, height);
    }
}

/// The same for rows that are the columns of a row-major matrix, column r of the matrix being row r; `height` is a
/// constant at each call.
CK_INLINE void gather_rows(const float *x, size_t x_stride, const size_t height, size_t inputs, float *packed) {
    for (size_t k = 0; k < inputs; k++) {
        memcpy(packed + k * height, x + k * x_stride, height * sizeof(float));
    }
}

#define GATHER_CASE(n)                                                                                                 \
    case n:                                                                                                            \
        gather_rows(x, x_stride, n, inputs, packed);                                                                   \
        break;

static void gather(const float *x, size_t x_stride, size_t height, size_t inputs, float *packed) {
    switch (height) {
        GATHER_CASE(1)
        GATHER_CASE(2)
        GATHER_CASE(3)
        GATHER_CASE(4)
        GATHER_CASE(5)
        GATHER_CASE(6)
        GATHER_CASE(7)
        GATHER_CASE(8)
        GATHER_CASE(9)
        GATHER_CASE(10)
        GATHER_CASE(11)
        GATHER_CASE(12)
    }
}

/// Floats of scratch that hold one panel's slice of bfloat16 weights, widened: as long as the inputs' blocks are.
#define WIDE_FLOATS (CK_INPUT_BLOCK * CK_PANEL_COLUMNS)

/// ck_product, and ck_multiply where `transposed` or `accumulate` is set.
CK_INLINE void product(int level, const void *panels, int type, size_t inputs, size_t outputs, size_t panel_begin,
                       size_t panel_end, const float *x, size_t x_stride, int transposed, size_t rows, float *y,
                       size_t y_stride, int accumulate, int relu, float *scratch) {
    if (rows == 0 || panel_begin >= panel_end) {
        return;
    }
    const ck_tile_function run = tile_function(level);
    const size_t element = type == CK_TYPE_BF16 ? 2 : 4;
    const size_t tiles = (rows + CK_MAX_TILE_ROWS - 1) / CK_MAX_TILE_ROWS;
    const tile_plan plan = {.tiles = tiles, .least = rows / tiles, .taller = rows % tiles};
    const size_t tallest = height_of(&plan, 0);
    // Where several tiles read a slice of bfloat16 weights, it is widened once for all of them: widening takes time of the
    // units that multiply.
    const int widens = type == CK_TYPE_BF16 && tiles > 1;
    float *const wide = widens ? scratch + CK_SCRATCH_FLOATS - WIDE_FLOATS : NULL;
    const size_t scratch_floats = widens ? CK_SCRATCH_FLOATS - WIDE_FLOATS : CK_SCRATCH_FLOATS;
    const size_t room = scratch_floats / tallest;
    // One row is read where it lies.
    const int in_place = rows == 1 && !transposed;
    size_t block = in_place ? inputs : tiles > 1 ? CK_INPUT_BLOCK : room;
    block = block < inputs ? block : inputs;
    const size_t group = in_place ? 1 : scratch_floats / (tallest * block);
    const size_t wanted = widens ? 1 : panels_at_once(plan.least);

    // A group of tiles goes over all panels before the next one begins: its inputs are read from the cache by every
    // panel, and the weights are read once for each group.
    size_t first_row = 0;
    for (size_t first = 0; first < tiles; first += group) {
        const size_t last = tiles - first < group ? tiles : first + group;
        size_t group_rows = 0;
        for (size_t begin = 0; begin < inputs; begin += block) {
            const size_t length = inputs - begin < block ? inputs - begin : block;
            group_rows = 0;
            for (size_t index = first; index < last && !in_place; index++) {
                const size_t height = height_of(&plan, index);
                if (transposed) {
                    gather(x + begin * x_stride + first_row + group_rows, x_stride, height, length,
                           scratch + group_rows * length);
                } else {
                    interleave(x + (first_row + group_rows) * x_stride + begin, x_stride, height, length,
                               scratch + group_rows * length);
                }
                group_rows += height;
            }
            size_t panel = panel_begin;
            while (panel < panel_end) {
                const size_t count = panel_end - panel < wanted ? panel_end - panel : wanted;
                const char *weights = (const char *)panels + (panel * inputs + begin) * CK_PANEL_COLUMNS * element;
                if (widens) {
                    widen_slice(level, weights, length * CK_PANEL_COLUMNS, wide);
                    weights = (const char *)wide;
                }
                size_t row = 0;
                for (size_t index = first; index < last; index++) {
                    const size_t height = height_of(&plan, index);
                    const ck_tile tile = {
                        .panels = weights,
                        .panel_stride = inputs * CK_PANEL_COLUMNS,
                        .inputs = length,
                        .x = in_place ? x + begin : scratch + row * length,
                        .x_step = height,
                        .y = y + (first_row + row) * y_stride + panel * CK_PANEL_COLUMNS,
                        .y_stride = y_stride,
                        .columns = outputs - panel * CK_PANEL_COLUMNS,
                        .accumulate = accumulate || begin > 0,
                        .relu = relu && begin + length == inputs,
                    };
                    run(&tile, height, count, widens ? CK_TYPE_F32 : type);
                    row += height;
                }
                panel += count;
            }
        }
        first_row += group_rows;
    }
}

void ck_product(int level, const void *panels, int type, size_t inputs, size_t outputs, size_t panel_begin,
                size_t panel_end, const float *x, size_t x_stride, size_t rows, float *y, size_t y_stride, int relu,
                float *scratch) {
    product(level, panels, type, inputs, outputs, panel_begin, panel_end, x, x_stride, 0, rows, y, y_stride, 0, relu,
            scratch);
}

void ck_multiply(int level, const float *panels, size_t depth, size_t columns, size_t panel_begin, size_t panel_end,
                 const float *a, size_t a_stride, int a_transposed, size_t rows, float *y, size_t y_stride,
                 int accumulate, int relu, float *scratch) {
    product(level, panels, CK_TYPE_F32, depth, columns, panel_begin, panel_end, a, a_stride, a_transposed, rows, y,
            y_stride, accumulate, relu, scratch);
}

void ck_multiply_streaming(int level, const float *a, size_t a_stride, const float *b, size_t b_stride, size_t rows,
                           size_t depth, size_t columns, float *y, size_t y_stride, int accumulate, float *scratch) {
    const size_t panels = (columns + CK_PANEL_COLUMNS - 1) / CK_PANEL_COLUMNS;
    float *const packed = scratch + CK_SCRATCH_FLOATS;
    const size_t block = CK_STREAM_FLOATS / (panels * CK_PANEL_COLUMNS);
    for (size_t begin = 0; begin < depth; begin += block) {
        const size_t length = depth - begin < block ? depth - begin : block;
        ck_pack_panels(b + begin * b_stride, b_stride, 0, length, columns, packed, 0, panels);
        product(level, packed, CK_TYPE_F32, length, columns, 0, panels, a + begin * a_stride, a_stride, 1, rows, y,
                y_stride, accumulate || begin > 0, 0, scratch);
    }
}
