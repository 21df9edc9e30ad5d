// SPDX-License-Identifier: Apache-2.0

#ifndef SWITCHYARD_CKERNELS_INTERNAL_H
#define SWITCHYARD_CKERNELS_INTERNAL_H

#include "CKernels.h"

#include <string.h>

#define CK_INLINE static inline __attribute__((always_inline))

/// Rows of activations that one pass over a panel covers at most.
#define CK_MAX_TILE_ROWS 12

CK_INLINE float ck_bf16_to_f32(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/// One pass of a product: some rows by a run of panels, or by half a panel, over one slice of the inputs.
///
/// The chain of an element goes on where the slice before it stopped, so cutting inputs into slices changes no bit.
typedef struct {
    /// The first panel, already moved to the slice's first input, and to the half's first column.
    const void *panels;
    /// Distance between panels, in elements.
    size_t panel_stride;
    /// Inputs of this slice.
    size_t inputs;
    /// The inputs of the pass's rows, side by side: input k of row r lies at x[k * rows + r].
    const float *x;
    /// What chains go on from, in rows that are as wide as the panels or the half; null: from 0.
    const float *from;
    size_t from_stride;
    /// Where sums go, in rows as wide.
    float *to;
    size_t to_stride;
    int relu;
    /// Where a pass over bfloat16 weights leaves them in float32, in an order of its own, for the passes that follow; null: it
    /// does not.
    float *widened;
    /// Whether the weights are what such a pass has left.
    int is_widened;
    /// Weights to prefetch while this pass computes: with every four inputs, `ahead_lines` cache lines, which lie `ahead_apart`
    /// bytes from each other, the first at `ahead`, which then moves on by `ahead_step` bytes. With several panels, also what
    /// lies `panel_stride` further on, for each of them.
    const char *ahead;
    size_t ahead_lines;
    size_t ahead_apart;
    size_t ahead_step;
} ck_tile;

/// Computes a pass. `panels` is a number that the level's `panels_at_once` may return, or 0: half a panel.
typedef void (*ck_tile_function)(const ck_tile *tile, size_t rows, size_t panels, int type);

void ck_tile_scalar(const ck_tile *tile, size_t rows, size_t panels, int type);
#if defined(__x86_64__)
void ck_tile_avx2(const ck_tile *tile, size_t rows, size_t panels, int type);
void ck_tile_avx512(const ck_tile *tile, size_t rows, size_t panels, int type);
#endif
#if defined(__aarch64__)
void ck_tile_neon(const ck_tile *tile, size_t rows, size_t panels, int type);
#endif

/// Lays `height` rows side by side: the kernels then read one stream front to back, which is twice as fast as twelve.
///
/// - transposed: row r is column r of a row-major matrix whose rows are `x_stride` floats apart.
/// - packed: input k of row r goes to packed[k * height + r].
void ck_interleave(const float *x, size_t x_stride, int transposed, size_t height, size_t inputs, float *packed);

#endif
