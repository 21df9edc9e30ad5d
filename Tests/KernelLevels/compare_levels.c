// SPDX-License-Identifier: Apache-2.0

// Compares the C kernels of every level that this processor runs with the portable ones, bit for bit, and prints a
// checksum of all results: two machines that print the same one compute the same bits. docs/testing.md says how to
// build it for another architecture.

#include "CKernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 1;
static uint64_t checksum = 0xcbf29ce484222325u;
static unsigned long compared, different;

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014, figure 17).
static uint64_t next(void) {
    state += 0x9E3779B97F4A7C15u;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/// Floats in -1 ... 1, one in sixteen of them a zero of either sign.
static void fill(float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const uint64_t bits = next();
        const float value = (float)(int32_t)(uint32_t)bits / 2147483648.0f;
        values[i] = bits >> 60 == 0 ? (bits & 1 ? -0.0f : 0.0f) : value;
    }
}

static void *memory(size_t bytes) {
    void *block = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!block) {
        exit(2);
    }
    memset(block, 0, bytes);
    return block;
}

/// Takes the portable result into the checksum, or compares another level's with it.
static void judge(int level, const float *result, const float *portable, size_t count, const char *what, size_t rows) {
    if (level == CK_LEVEL_SCALAR) {
        const unsigned char *bytes = (const unsigned char *)result;
        for (size_t i = 0; i < count * sizeof(float); i++) {
            checksum = (checksum ^ bytes[i]) * 0x100000001b3u;
        }
        return;
    }
    compared++;
    if (memcmp(result, portable, count * sizeof(float)) != 0) {
        different++;
        printf("level %d: %s with %zu rows differs\n", level, what, rows);
    }
}

static float scratch[CK_SCRATCH_FLOATS];

static void products(size_t inputs, size_t outputs, size_t rows, int type, int relu) {
    const size_t panels = (outputs + CK_PANEL_COLUMNS - 1) / CK_PANEL_COLUMNS;
    const size_t x_stride = inputs + 3, y_stride = outputs + 5;
    float *weights = memory(inputs * outputs * 4);
    float *x = memory(rows * x_stride * 4);
    void *packed = memory(panels * CK_PANEL_COLUMNS * inputs * 4);
    float *portable = memory(rows * y_stride * 4);
    float *y = memory(rows * y_stride * 4);
    fill(weights, inputs * outputs);
    fill(x, rows * x_stride);
    ck_pack(weights, CK_TYPE_F32, inputs, outputs, packed, type, 0, panels);
    for (int level = CK_LEVEL_SCALAR; level <= CK_LEVEL_NEON; level++) {
        if (ck_has_level(level)) {
            float *to = level == CK_LEVEL_SCALAR ? portable : y;
            ck_product(level, packed, type, inputs, outputs, 0, panels, x, x_stride, rows, to, y_stride, relu,
                       scratch);
            judge(level, to, portable, rows * y_stride, type == CK_TYPE_BF16 ? "bfloat16" : "float32", rows);
        }
    }
    free(weights);
    free(x);
    free(packed);
    free(portable);
    free(y);
}

static void int8_products(size_t inputs, size_t outputs, size_t rows, int relu) {
    const size_t panels = (outputs + CK_PANEL_COLUMNS - 1) / CK_PANEL_COLUMNS;
    const size_t q_stride = (inputs + 63) / 64 * 64 + 64, y_stride = outputs + 5;
    float *weights = memory(inputs * outputs * 4);
    float *x = memory(rows * inputs * 4);
    char *packed = memory(panels * CK_PANEL_COLUMNS * (inputs + CK_INT8_GROUP));
    float *scales = memory(panels * CK_PANEL_COLUMNS * 4);
    int32_t *compensation = memory(panels * CK_PANEL_COLUMNS * 4);
    char *q = memory(rows * q_stride);
    float *row_scales = memory(rows * 4);
    float *portable = memory(rows * y_stride * 4);
    float *y = memory(rows * y_stride * 4);
    fill(weights, inputs * outputs);
    fill(x, rows * inputs);
    ck_pack_int8(weights, CK_TYPE_F32, inputs, outputs, packed, scales, compensation, 0, panels);
    for (int level = CK_LEVEL_SCALAR; level <= CK_LEVEL_NEON; level++) {
        if (ck_has_level(level)) {
            float *to = level == CK_LEVEL_SCALAR ? portable : y;
            ck_quantize_rows(level, x, inputs, inputs, rows, q, q_stride, row_scales);
            ck_product_int8(level, packed, scales, compensation, inputs, outputs, 0, panels, q, q_stride, row_scales,
                            rows, to, y_stride, relu);
            judge(level, to, portable, rows * y_stride, "int8", rows);
        }
    }
    free(weights);
    free(x);
    free(packed);
    free(scales);
    free(compensation);
    free(q);
    free(row_scales);
    free(portable);
    free(y);
}

static void vectors(size_t count) {
    // Keys and values lie behind each other in pages; the decoder's queries see 6, 7, ... of them.
    enum { keys = 19, page_tokens = 8, queries = 6, first = 6 };
    float *x = memory(count * 4), *weight = memory(count * 4), *rows = memory(keys * count * 4);
    float bias[keys + queries];
    float *portable = memory(count * 4), *y = memory(count * 4);
    fill(x, count);
    fill(weight, count);
    fill(rows, keys * count);
    fill(bias, keys + queries);
    for (int level = CK_LEVEL_SCALAR; level <= CK_LEVEL_NEON; level++) {
        if (ck_has_level(level)) {
            float *to = level == CK_LEVEL_SCALAR ? portable : y;
            ck_rms_norm(level, x, weight, 1e-6f, count, to);
            judge(level, to, portable, count, "norm", count);
        }
    }
    for (int level = CK_LEVEL_SCALAR; level <= CK_LEVEL_NEON; level++) {
        if (ck_has_level(level)) {
            float *to = level == CK_LEVEL_SCALAR ? portable : y;
            memcpy(to, x, count * 4);
            for (size_t i = 0; i < count; i++) {
                to[i] *= 20;
            }
            ck_softmax(level, to, count);
            judge(level, to, portable, count, "softmax", count);
        }
    }
    uint16_t *halves = malloc(keys * count * sizeof *halves + 1);
    ck_round_bf16(rows, keys * count, halves);
    float *contexts = memory(queries * count * 4), *portable_contexts = memory(queries * count * 4);
    float *asked = memory(queries * count * 4), *room = memory(ck_attend_floats(first + queries) * 4);
    fill(asked, queries * count);
    for (int type = CK_TYPE_F32; type <= CK_TYPE_BF16; type++) {
        const char *kept = type == CK_TYPE_F32 ? (const char *)rows : (const char *)halves;
        const size_t row = count * (type == CK_TYPE_F32 ? 4 : 2);
        const void *pages[] = {kept, kept + page_tokens * row};
        const ck_kept_head head = {
            .key_pages = pages,
            .value_pages = pages,
            .values = 3 * row,
            .page_tokens = page_tokens,
            .type = type,
            .width = count,
        };
        for (int level = CK_LEVEL_SCALAR; level <= CK_LEVEL_NEON; level++) {
            if (ck_has_level(level)) {
                float *to = level == CK_LEVEL_SCALAR ? portable_contexts : contexts;
                ck_attend(level, &head, asked, count, queries, first, 1, bias + queries, room, to);
                judge(level, to, portable_contexts, queries * count, "attention", count);
            }
        }
    }
    float *packed = memory(ck_sequence_floats(queries, keys, count) * 4);
    ck_sequence_keep(rows, rows, count, keys, count, packed);
    for (int level = CK_LEVEL_SCALAR; level <= CK_LEVEL_NEON; level++) {
        if (ck_has_level(level)) {
            float *to = level == CK_LEVEL_SCALAR ? portable_contexts : contexts;
            ck_sequence_attend(level, asked, count, queries, keys, count, bias + queries, to, packed);
            judge(level, to, portable_contexts, queries * count, "a sequence's attention", count);
        }
    }
    free(packed);
    free(contexts);
    free(portable_contexts);
    free(asked);
    free(room);
    free(halves);
    free(x);
    free(weight);
    free(rows);
    free(portable);
    free(y);
}

int main(void) {
    static const size_t shapes[][2] = {{1, 1}, {5, 31}, {24, 75}, {33, 130}, {130, 96}, {260, 65}};
    for (size_t shape = 0; shape < sizeof shapes / sizeof *shapes; shape++) {
        for (size_t rows = 1; rows <= 64; rows++) {
            const size_t inputs = shapes[shape][0], outputs = shapes[shape][1];
            products(inputs, outputs, rows, CK_TYPE_F32, rows % 2);
            products(inputs, outputs, rows, CK_TYPE_BF16, rows % 2);
            int8_products(inputs, outputs, rows, rows % 2);
        }
    }
    // Several slices and blocks of inputs, and several groups of rows.
    for (size_t rows = 2; rows <= 33; rows++) {
        products(1541, 49, rows, CK_TYPE_F32, rows % 2);
        products(1541, 75, rows, CK_TYPE_BF16, rows % 2);
    }
    products(3077, 45, 205, CK_TYPE_F32, 0);
    products(3077, 45, 205, CK_TYPE_BF16, 1);
    products(4100, 70, 14, CK_TYPE_F32, 1);
    products(4100, 70, 14, CK_TYPE_BF16, 0);
    int8_products(4100, 230, 51, 0);
    int8_products(CK_INT8_MOST_INPUTS, 33, 1, 0);
    for (size_t count = 1; count <= 100; count++) {
        vectors(count);
    }
    const int best = ck_best_level();
    printf("best level %d, int8 instructions %d: %lu comparisons, %lu different, checksum %016llx\n", best,
           ck_int8_kernel(best), compared, different, (unsigned long long)checksum);
    return different != 0;
}
