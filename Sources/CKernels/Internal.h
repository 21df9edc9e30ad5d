// SPDX-License-Identifier: Apache-2.0

#ifndef SWITCHYARD_CKERNELS_INTERNAL_H
#define SWITCHYARD_CKERNELS_INTERNAL_H

#include "CKernels.h"

#include <string.h>

#define CK_INLINE static inline __attribute__((always_inline))

/// Rows of activations that one pass over a panel covers at most.
#define CK_MAX_TILE_ROWS 12

/// Inputs after which a product over several row tiles moves on, so that the panel's slice stays in the L2 cache (128
/// KiB in float32). The chain of an element continues where it stopped, so the result is the same.
#define CK_INPUT_BLOCK 1024

CK_INLINE float ck_bf16_to_f32(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/// Widens bfloat16 weights, and prefetches those a page further on.
CK_INLINE void ck_widen_bf16(const void *source, size_t count, float *destination) {
    const char *bytes = source;
    for (size_t i = 0; i < count; i += 32) {
        __builtin_prefetch(bytes + i * 2 + 4096);
        for (size_t lane = 0; lane < 32; lane++) {
            uint16_t bits;
            memcpy(&bits, bytes + (i + lane) * 2, sizeof bits);
            destination[i + lane] = ck_bf16_to_f32(bits);
        }
    }
}

/// One tile of a product: up to CK_MAX_TILE_ROWS rows by a run of panels, over one block of inputs.
typedef struct {
    /// The first panel, already moved to the block's first input.
    const void *panels;
    /// Distance between panels, in elements.
    size_t panel_stride;
    /// Inputs in this block.
    size_t inputs;
    /// The inputs of the tile's rows, side by side: input k of row r lies at x[k * x_step + r].
    const float *x;
    size_t x_step;
    float *y;
    size_t y_stride;
    /// Columns of y from the first panel's first column on.
    size_t columns;
    /// Go on from what y holds instead of from 0.
    int accumulate;
    int relu;
} ck_tile;

typedef void (*ck_tile_function)(const ck_tile *tile, size_t rows, size_t panels, int type);

void ck_tile_scalar(const ck_tile *tile, size_t rows, size_t panels, int type);
#if defined(__x86_64__)
void ck_tile_avx2(const ck_tile *tile, size_t rows, size_t panels, int type);
void ck_tile_avx512(const ck_tile *tile, size_t rows, size_t panels, int type);
#endif
#if defined(__aarch64__)
void ck_tile_neon(const ck_tile *tile, size_t rows, size_t panels, int type);
#endif

#endif
