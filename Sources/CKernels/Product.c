// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

/// When bfloat16 weights are widened.
enum {
    /// In each pass anew, as they are loaded.
    WIDENS_AT_LOADS,
    /// A slice at a time, before all passes over it.
    WIDENS_FIRST,
    /// At loads where there are few passes; or else the first pass over a slice leaves it widened for the others.
    WIDENS_ONCE,
};

/// How a level goes through a product.
typedef struct {
    ck_tile_function run;
    /// Rows of a pass at most.
    size_t rows;
    /// Rows up to which the sums of a whole panel fit into the registers. Taller tiles cross a panel in two halves.
    size_t whole_rows;
    /// Panels that one row takes at once, and rows that take two. A multiply-add has a latency of four or five cycles and two
    /// start in each, so fewer than eight chains in flight would leave the units idle.
    size_t panels_of_one;
    size_t rows_of_two;
    /// One of WIDENS_*.
    int widens;
    /// Rows up to which a product goes through each panel once, by type: `whole_rows` at most.
    size_t rows_of_once[2];
    /// Inputs of a slice at most that passes read from the second-level cache while the next one comes to it from memory; 0:
    /// slices stay in the first-level cache.
    size_t far_slice;
    /// Rows for each byte of a weight up to which they stay there nevertheless, where the processor gains by it
    /// (`ck_prefers_near_slices`): reading a slice takes longer than computing with it.
    size_t near_rows;
} product_kernel;

static product_kernel kernel_of(int level) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX512) {
        return (product_kernel){ck_tile_avx512, 12, 12, 4, 4, WIDENS_ONCE, {4, 3}, 1024, 6};
    }
    if (level >= CK_LEVEL_AVX2) {
        return (product_kernel){ck_tile_avx2, 6, 3, 2, 1, WIDENS_AT_LOADS, {3, 3}, 1024, 3};
    }
#endif
#if defined(__aarch64__)
    if (level == CK_LEVEL_NEON) {
        return (product_kernel){ck_tile_neon, 6, 2, 2, 1, WIDENS_FIRST, {2, 2}, 0, 0};
    }
#endif
    (void)level;
    return (product_kernel){ck_tile_scalar, 12, 12, 1, 0, WIDENS_FIRST, {12, 12}, 0, 0};
}

// MARK: - The plan

/// Rows of one group at most: its tiles go over all panels before the next group begins.
#define GROUP_ROWS 192

/// Inputs of a block, below which a group takes fewer rows. Chains that stop seldom are worth more than groups of more than
/// BLOCK_ROWS rows, where the second-level cache has room for both.
#define LEAST_BLOCK 512
#define MOST_BLOCK 1024
#define BLOCK_ROWS 96

/// Inputs of a slice in the first-level cache at most, and of one that is widened before all passes.
#define MOST_SLICE 512
#define MOST_WIDE_SLICE 256

/// Passes over a slice from which the first one leaves it widened. With two, what they save goes into the stores.
#define WIDENING_PASSES 3

/// The parts of the scratch memory: inputs side by side, sums between two slices, and a slice of widened weights.
#define SUM_FLOATS (GROUP_ROWS * CK_PANEL_COLUMNS)
#define WIDE_INPUTS 768
#define WIDE_FLOATS (WIDE_INPUTS * CK_PANEL_COLUMNS)
#define INPUT_FLOATS (CK_SCRATCH_FLOATS - SUM_FLOATS - WIDE_FLOATS)

/// How a product is cut.
///
/// Groups of rows go through blocks of inputs, whose activations stay in the second-level cache. In a block they go through
/// one panel after another, slice by slice. A slice stays in a cache while all tiles of the group pass over it, and the next
/// one is fetched from memory meanwhile, each pass fetching its share: reading and multiplying take no turns.
typedef struct {
    product_kernel kernel;
    size_t groups;
    size_t block;
    size_t slice;
    /// Whether rows go through each panel once, so that there are no slices.
    int once;
    /// Whether slices come from the second-level cache, rather than from the first-level one.
    int far;
} product_plan;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/// The length of pieces that are nearly equal and at most `most`.
static size_t even_piece(size_t whole, size_t most) {
    const size_t pieces = (whole + most - 1) / most;
    return (whole + pieces - 1) / pieces;
}

/// Where piece `index` of `pieces` nearly equal ones begins.
static size_t piece_start(size_t whole, size_t pieces, size_t index) {
    return whole / pieces * index + smaller(whole % pieces, index);
}

static product_plan plan_of(int level, int type, size_t inputs, size_t rows, int in_place) {
    product_plan plan = {.kernel = kernel_of(level)};
    if (in_place) {
        plan.groups = 1;
        plan.block = inputs;
        plan.slice = inputs;
        plan.once = 1;
        return plan;
    }
    const product_kernel *kernel = &plan.kernel;
    const size_t half_l2 = ck_cache_bytes(2) / 2 / sizeof(float);
    const size_t room = half_l2 < 32 * 1024 ? 32 * 1024 : smaller(half_l2, INPUT_FLOATS);
    const size_t wanted = smaller(room / BLOCK_ROWS, MOST_BLOCK);
    const size_t least = even_piece(inputs, wanted < LEAST_BLOCK ? LEAST_BLOCK : wanted);
    const size_t most_rows = smaller(room / least, GROUP_ROWS);
    plan.groups = (rows + most_rows - 1) / most_rows;
    const size_t group_rows = (rows + plan.groups - 1) / plan.groups;
    plan.block = even_piece(inputs, room / group_rows);
    plan.once = group_rows <= kernel->rows_of_once[type == CK_TYPE_BF16];
    const int narrow = type == CK_TYPE_BF16 && kernel->widens != WIDENS_FIRST;
    const size_t column_bytes = narrow ? 2 : 4;
    const int near = ck_prefers_near_slices() && group_rows <= kernel->near_rows * column_bytes;
    plan.far = kernel->far_slice > 0 && !near;
    if (plan.once) {
        plan.slice = plan.block;
    } else if (plan.far) {
        // Two slices take a quarter of the second-level cache.
        const size_t fitting = ck_cache_bytes(2) / 8 / (CK_PANEL_COLUMNS * column_bytes);
        const int leaves = type == CK_TYPE_BF16 && kernel->widens == WIDENS_ONCE;
        const size_t most = leaves ? smaller(WIDE_INPUTS, kernel->far_slice) : kernel->far_slice;
        plan.slice = even_piece(plan.block, fitting < 256 ? 256 : smaller(fitting, most));
    } else {
        // A pass reads a line, or half a one, of each input. A quarter of the first-level cache leaves room for the activations
        // and for what arrives.
        const size_t pass_columns = kernel->whole_rows == kernel->rows ? CK_PANEL_COLUMNS : CK_PANEL_COLUMNS / 2;
        const size_t fitting = ck_cache_bytes(1) / 4 / (pass_columns * column_bytes);
        const size_t most = kernel->widens == WIDENS_FIRST ? MOST_WIDE_SLICE : MOST_SLICE;
        plan.slice = even_piece(plan.block, fitting < 64 ? 64 : smaller(fitting, most));
    }
    return plan;
}

/// Cuts the rows of a group into tiles.
///
/// - heights: room for GROUP_ROWS.
/// Returns their number.
static size_t tile_heights(const product_kernel *kernel, size_t rows, unsigned char *heights) {
    size_t tiles = 0;
    const int prefers_threes = kernel->rows == 6 && kernel->whole_rows == 3;
    if (!prefers_threes || rows <= 6) {
        // Nearly equal ones, so that 13 rows are 7 + 6 rather than 12 + 1.
        tiles = (rows + kernel->rows - 1) / kernel->rows;
        for (size_t index = 0; index < tiles; index++) {
            heights[index] = (unsigned char)(piece_start(rows, tiles, index + 1) - piece_start(rows, tiles, index));
        }
        return tiles;
    }
    // Sixes and fives by half a panel, and threes by a whole one, have ten and twelve chains in flight; fours have eight.
    // Every number above 7 is a sum of those three.
    static const unsigned char rest[6][3] = {{0}, {5, 5, 3}, {5, 3}, {3}, {5, 5}, {5}};
    static const unsigned char taken[6] = {0, 13, 8, 3, 10, 5};
    if (rows == 7) {
        heights[0] = 4;
        heights[1] = 3;
        return 2;
    }
    for (size_t left = rows - taken[rows % 6]; left > 0; left -= 6) {
        heights[tiles++] = 6;
    }
    for (size_t index = 0; index < 3 && rest[rows % 6][index] > 0; index++) {
        heights[tiles++] = rest[rows % 6][index];
    }
    return tiles;
}

// MARK: - Passes

/// What is computed.
typedef struct {
    const char *panels;
    int type;
    size_t inputs;
    size_t outputs;
    size_t panel_begin;
    size_t panel_end;
    const float *x;
    size_t x_stride;
    int transposed;
    size_t rows;
    float *y;
    size_t y_stride;
    int accumulate;
    int relu;
} product_call;

/// One group of rows in one block of inputs.
typedef struct {
    const product_call *call;
    const product_plan *plan;
    int level;
    const unsigned char *heights;
    size_t tiles;
    /// The group's rows.
    size_t rows;
    /// Whether no group follows.
    int last;
    /// The group's first row of y.
    float *y;
    /// The block's inputs.
    size_t begin;
    size_t length;
    /// Its activations, side by side in each tile.
    const float *x;
    /// Room for the sums of all rows and one panel.
    float *sums;
    /// Room for WIDE_FLOATS, where they are needed.
    float *wide;
} product_part;

#if defined(__x86_64__)
#define PREFETCH_BYTES 4096
#else
#define PREFETCH_BYTES 2048
#endif

static size_t element_bytes(int type) { return type == CK_TYPE_BF16 ? 2 : 4; }

/// Where a panel's weights of an input lie.
static const char *weights_at(const product_call *call, size_t panel, size_t input) {
    return call->panels + (panel * call->inputs + input) * CK_PANEL_COLUMNS * element_bytes(call->type);
}

/// Copies what a panel that sticks out of the matrix has in y, and zeros beside it.
static void load_sums(const product_part *part, const float *y, size_t columns) {
    for (size_t row = 0; row < part->rows; row++) {
        float *sums = part->sums + row * CK_PANEL_COLUMNS;
        memset(sums, 0, CK_PANEL_COLUMNS * sizeof(float));
        memcpy(sums, y + row * part->call->y_stride, columns * sizeof(float));
    }
}

static void store_sums(const product_part *part, float *y, size_t columns) {
    for (size_t row = 0; row < part->rows; row++) {
        memcpy(y + row * part->call->y_stride, part->sums + row * CK_PANEL_COLUMNS, columns * sizeof(float));
    }
}

/// One pass by each panel, or by several panels at once: memory bounds it. The weights of the next page are fetched, past
/// which the processor does not prefetch by itself.
static void run_once(const product_part *part) {
    const product_call *call = part->call;
    const product_kernel *kernel = &part->plan->kernel;
    const size_t line_bytes = CK_PANEL_COLUMNS * element_bytes(call->type);
    const int continues = call->accumulate || part->begin > 0;
    size_t panel = call->panel_begin;
    while (panel < call->panel_end) {
        const size_t left = call->outputs - panel * CK_PANEL_COLUMNS;
        const int partial = left < CK_PANEL_COLUMNS;
        size_t count = part->rows == 1 ? kernel->panels_of_one : part->rows <= kernel->rows_of_two ? 2 : 1;
        while (count > 1 && (panel + count > call->panel_end || count * CK_PANEL_COLUMNS > left)) {
            count /= 2;
        }
        float *y = part->y + panel * CK_PANEL_COLUMNS;
        float *to = partial ? part->sums : y;
        const size_t to_stride = partial ? CK_PANEL_COLUMNS : call->y_stride;
        if (partial && continues) {
            load_sums(part, y, left);
        }
        const char *weights = weights_at(call, panel, part->begin);
        const ck_tile tile = {
            .panels = weights,
            .panel_stride = call->inputs * CK_PANEL_COLUMNS,
            .inputs = part->length,
            .x = part->x,
            .from = continues ? to : NULL,
            .from_stride = to_stride,
            .to = to,
            .to_stride = to_stride,
            .relu = call->relu && part->begin + part->length == call->inputs,
            .ahead = weights + PREFETCH_BYTES,
            .ahead_lines = 4 * line_bytes / 64,
            .ahead_apart = 64,
            .ahead_step = 4 * line_bytes,
        };
        kernel->run(&tile, part->rows, left <= CK_PANEL_COLUMNS / 2 ? 0 : count, call->type);
        if (partial) {
            store_sums(part, y, left);
        }
        panel += count;
    }
}

/// Widens bfloat16 weights, and prefetches those a page further on.
static void widen_slice(const char *bytes, size_t count, float *destination) {
    for (size_t i = 0; i < count; i += 32) {
        __builtin_prefetch(bytes + i * 2 + 4096);
        for (size_t lane = 0; lane < 32; lane++) {
            uint16_t bits;
            memcpy(&bits, bytes + (i + lane) * 2, sizeof bits);
            destination[i + lane] = ck_bf16_to_f32(bits);
        }
    }
}

/// The weights that are read after a panel's slice, which ends at input `end`: the panel's next slice, or the first one of the
/// panel, block or group that follows. Null: nothing follows.
static const char *weights_after(const product_part *part, size_t panel, size_t end) {
    const product_call *call = part->call;
    if (end < part->begin + part->length) {
        return weights_at(call, panel, end);
    }
    if (panel + 1 < call->panel_end) {
        return weights_at(call, panel + 1, part->begin);
    }
    if (end < call->inputs) {
        return weights_at(call, call->panel_begin, end);
    }
    return part->last ? NULL : weights_at(call, call->panel_begin, 0);
}

/// Says which weights a pass fetches meanwhile.
///
/// From memory they come in streams, as many as there are lines for every four inputs: from one page alone, the processor does
/// not fetch by itself as much as memory can bring.
///
/// - share: their bytes.
static void set_ahead(ck_tile *pass, const char *ahead, size_t share, int far) {
    const size_t fours = pass->inputs / 4;
    pass->ahead = ahead;
    if (!ahead || fours == 0) {
        pass->ahead_lines = 0;
        return;
    }
    pass->ahead_lines = (share + 64 * fours - 1) / (64 * fours);
    pass->ahead_apart = far ? (share / pass->ahead_lines + 63) / 64 * 64 : 64;
    pass->ahead_step = ((far ? pass->ahead_apart : share) + fours - 1) / fours;
}

/// The passes of all tiles over one slice of a panel.
///
/// - tile: that of the group's first row and the panel's first column, without x and what is fetched.
/// - offset: the slice's first input, counted from the block's.
/// - ahead: what the passes fetch, `share` bytes each; null: nothing.
static void run_slice(const product_part *part, const ck_tile *tile, size_t offset, size_t columns, int type,
                      const char *ahead, size_t share) {
    const product_kernel *kernel = &part->plan->kernel;
    const int narrow = columns <= CK_PANEL_COLUMNS / 2;
    ck_tile pass = *tile;
    set_ahead(&pass, ahead, share, part->plan->far);
    const int leaves = kernel->widens == WIDENS_ONCE && type == CK_TYPE_BF16 && !narrow && part->tiles >= WIDENING_PASSES;
    // All tiles cross the first half of the panel and then the second, so that half a short slice fits into the first-level cache.
    for (size_t half = 0; half < (narrow ? 1 : 2); half++) {
        const size_t first = half * CK_PANEL_COLUMNS / 2;
        size_t row = 0;
        for (size_t index = 0; index < part->tiles; index++) {
            const size_t height = part->heights[index];
            const int whole = !narrow && height <= kernel->whole_rows;
            if (half == 0 || !whole) {
                pass.panels = (const char *)tile->panels + first * element_bytes(type);
                pass.x = part->x + row * part->length + offset * height;
                pass.from = tile->from ? tile->from + row * tile->from_stride + first : NULL;
                pass.to = tile->to + row * tile->to_stride + first;
                if (leaves) {
                    pass.panels = index == 0 ? tile->panels : part->wide;
                    pass.widened = index == 0 ? part->wide : NULL;
                    pass.is_widened = index > 0;
                }
                kernel->run(&pass, height, whole ? 1 : 0, type);
                pass.ahead = pass.ahead ? pass.ahead + share : NULL;
            }
            row += height;
        }
    }
}

/// Several passes by each panel, slice by slice: the next slice is fetched meanwhile.
static void run_slices(const product_part *part) {
    const product_call *call = part->call;
    const product_plan *plan = part->plan;
    const int continues = call->accumulate || part->begin > 0;
    const int widens = plan->kernel.widens == WIDENS_FIRST && call->type == CK_TYPE_BF16;
    const size_t block_end = part->begin + part->length;
    for (size_t panel = call->panel_begin; panel < call->panel_end; panel++) {
        const size_t columns = smaller(call->outputs - panel * CK_PANEL_COLUMNS, CK_PANEL_COLUMNS);
        const int partial = columns < CK_PANEL_COLUMNS;
        float *y = part->y + panel * CK_PANEL_COLUMNS;
        size_t passes = 0;
        for (size_t index = 0; index < part->tiles; index++) {
            const int once = columns <= CK_PANEL_COLUMNS / 2 || part->heights[index] <= plan->kernel.whole_rows;
            passes += once ? 1 : 2;
        }
        if (partial && continues) {
            load_sums(part, y, columns);
        }
        for (size_t begin = part->begin; begin < block_end; begin += plan->slice) {
            const size_t length = smaller(block_end - begin, plan->slice);
            const int from_sums = begin > part->begin || (partial && continues);
            const int to_sums = begin + length < block_end || partial;
            const char *weights = weights_at(call, panel, begin);
            const size_t bytes = length * CK_PANEL_COLUMNS * element_bytes(call->type);
            const ck_tile tile = {
                .panels = widens ? (const char *)part->wide : weights,
                .panel_stride = call->inputs * CK_PANEL_COLUMNS,
                .inputs = length,
                .from = from_sums ? part->sums : continues ? y : NULL,
                .from_stride = from_sums ? CK_PANEL_COLUMNS : call->y_stride,
                .to = to_sums ? part->sums : y,
                .to_stride = to_sums ? CK_PANEL_COLUMNS : call->y_stride,
                .relu = call->relu && begin + length == call->inputs,
            };
            if (widens) {
                widen_slice(weights, length * CK_PANEL_COLUMNS, part->wide);
            }
            run_slice(part, &tile, begin - part->begin, columns, widens ? CK_TYPE_F32 : call->type,
                      weights_after(part, panel, begin + length), (bytes + passes - 1) / passes);
        }
        if (partial) {
            store_sums(part, y, columns);
        }
    }
}

// MARK: - Products

static void run_group(const product_call *call, const product_plan *plan, size_t first_row, size_t rows, int in_place,
                      float *scratch) {
    unsigned char heights[GROUP_ROWS];
    // One row may come without scratch memory.
    float spare[CK_PANEL_COLUMNS];
    product_part part = {
        .call = call,
        .plan = plan,
        .heights = heights,
        .tiles = tile_heights(&plan->kernel, rows, heights),
        .rows = rows,
        .last = first_row + rows == call->rows,
        .y = call->y + first_row * call->y_stride,
        .sums = in_place ? spare : scratch + INPUT_FLOATS,
        .wide = in_place ? NULL : scratch + INPUT_FLOATS + SUM_FLOATS,
    };
    for (size_t begin = 0; begin < call->inputs; begin += plan->block) {
        part.begin = begin;
        part.length = smaller(call->inputs - begin, plan->block);
        part.x = in_place ? call->x : scratch;
        size_t row = 0;
        for (size_t index = 0; index < part.tiles && !in_place; index++) {
            const size_t from = first_row + row;
            const float *x = call->transposed ? call->x + begin * call->x_stride + from
                                              : call->x + from * call->x_stride + begin;
            ck_interleave(x, call->x_stride, call->transposed, heights[index], part.length, scratch + row * part.length);
            row += heights[index];
        }
        if (plan->once) {
            run_once(&part);
        } else {
            run_slices(&part);
        }
    }
}

/// ck_product, and ck_multiply where `transposed` or `accumulate` is set.
static void product(int level, const product_call *call, float *scratch) {
    if (call->rows == 0 || call->panel_begin >= call->panel_end) {
        return;
    }
    // One row is read where it lies.
    const int in_place = call->rows == 1 && !call->transposed;
    const product_plan plan = plan_of(level, call->type, call->inputs, call->rows, in_place);
    for (size_t group = 0; group < plan.groups; group++) {
        const size_t first = piece_start(call->rows, plan.groups, group);
        const size_t rows = piece_start(call->rows, plan.groups, group + 1) - first;
        run_group(call, &plan, first, rows, in_place, scratch);
    }
}

void ck_product(int level, const void *panels, int type, size_t inputs, size_t outputs, size_t panel_begin,
                size_t panel_end, const float *x, size_t x_stride, size_t rows, float *y, size_t y_stride, int relu,
                float *scratch) {
    const product_call call = {
        .panels = panels,
        .type = type,
        .inputs = inputs,
        .outputs = outputs,
        .panel_begin = panel_begin,
        .panel_end = panel_end,
        .x = x,
        .x_stride = x_stride,
        .rows = rows,
        .y = y,
        .y_stride = y_stride,
        .relu = relu,
    };
    product(level, &call, scratch);
}

void ck_multiply(int level, const float *panels, size_t depth, size_t columns, size_t panel_begin, size_t panel_end,
                 const float *a, size_t a_stride, int a_transposed, size_t rows, float *y, size_t y_stride,
                 int accumulate, int relu, float *scratch) {
    const product_call call = {
        .panels = (const char *)panels,
        .type = CK_TYPE_F32,
        .inputs = depth,
        .outputs = columns,
        .panel_begin = panel_begin,
        .panel_end = panel_end,
        .x = a,
        .x_stride = a_stride,
        .transposed = a_transposed,
        .rows = rows,
        .y = y,
        .y_stride = y_stride,
        .accumulate = accumulate,
        .relu = relu,
    };
    product(level, &call, scratch);
}

void ck_multiply_streaming(int level, const float *a, size_t a_stride, const float *b, size_t b_stride, size_t rows,
                           size_t depth, size_t columns, float *y, size_t y_stride, int accumulate, float *scratch) {
    const size_t panels = (columns + CK_PANEL_COLUMNS - 1) / CK_PANEL_COLUMNS;
    float *const packed = scratch + CK_SCRATCH_FLOATS;
    const size_t block = CK_STREAM_FLOATS / (panels * CK_PANEL_COLUMNS);
    for (size_t begin = 0; begin < depth; begin += block) {
        const size_t length = depth - begin < block ? depth - begin : block;
        ck_pack_panels(b + begin * b_stride, b_stride, 0, length, columns, packed, 0, panels);
        ck_multiply(level, packed, length, columns, 0, panels, a + begin * a_stride, a_stride, 1, rows, y, y_stride,
                    accumulate || begin > 0, 0, scratch);
    }
}
