// SPDX-License-Identifier: Apache-2.0

#ifndef SWITCHYARD_CKERNELS_INT8_H
#define SWITCHYARD_CKERNELS_INT8_H

#include "Internal.h"

// Every result here is rounded where it is written: the compiler must not fuse anything.
#pragma STDC FP_CONTRACT OFF

/// Rows of activations that one pass over an int8 panel covers at most.
#define CK_INT8_TILE_ROWS 12

/// Bytes of one group of a panel: CK_INT8_GROUP inputs of each of its columns.
#define CK_INT8_GROUP_BYTES ((size_t)CK_PANEL_COLUMNS * CK_INT8_GROUP)

/// How far ahead of the multiply-adds the weights are prefetched, in bytes of one panel: a page, past which the
/// processor does not prefetch by itself.
#define CK_INT8_PREFETCH_BYTES 4096

CK_INLINE size_t ck_int8_groups(size_t inputs) { return (inputs + CK_INT8_GROUP - 1) / CK_INT8_GROUP; }

/// The factors between numbers and int8.
typedef struct {
    float inverse;
    float scale;
} ck_int8_quantum;

/// The quantum of numbers whose largest magnitude has the given bits.
///
/// Bits of magnitudes are ordered as the magnitudes are, infinity and NaN above all others: these get a scale of NaN,
/// which every result then shows. Where the scale would not be a normal number, all numbers become 0.
CK_INLINE ck_int8_quantum ck_int8_quantum_of(uint32_t magnitude) {
    ck_int8_quantum quantum = {0, 0};
    if (magnitude >= 0x7F800000u) {
        const uint32_t nan = 0x7FC00000u;
        memcpy(&quantum.scale, &nan, sizeof nan);
        return quantum;
    }
    float largest;
    memcpy(&largest, &magnitude, sizeof largest);
    // 127 times the smallest normal number, so that the scale is a normal number too.
    if (largest < 0x1.FCp-120f) {
        return quantum;
    }
    quantum.inverse = 127.0f / largest;
    quantum.scale = largest / 127.0f;
    return quantum;
}

/// The integer nearest to x * inverse, ties to even, as the low byte of its two's complement.
CK_INLINE uint8_t ck_int8_round(float x, float inverse) {
    const float scaled = x * inverse;
    // Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits.
    const float shifted = scaled + 12582912.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return (uint8_t)bits;
}

/// The bits of the largest magnitude among `count` floats, or of `least` where that is more.
CK_INLINE uint32_t ck_int8_magnitude(const float *x, size_t count, uint32_t least) {
    uint32_t most = least;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7FFFFFFFu;
        most = bits > most ? bits : most;
    }
    return most;
}

/// Elements of a source row that are widened at a time.
#define CK_INT8_WIDE 512

CK_INLINE size_t ck_source_bytes(int source_type) { return source_type == CK_TYPE_F32 ? 4 : 2; }

/// The quantum of a row of any source type.
CK_INLINE ck_int8_quantum ck_int8_row_quantum(const char *row, int source_type, size_t inputs) {
    float wide[CK_INT8_WIDE];
    uint32_t magnitude = 0;
    for (size_t begin = 0; begin < inputs; begin += CK_INT8_WIDE) {
        const size_t count = inputs - begin < CK_INT8_WIDE ? inputs - begin : CK_INT8_WIDE;
        ck_widen(row + begin * ck_source_bytes(source_type), source_type, count, wide);
        magnitude = ck_int8_magnitude(wide, count, magnitude);
    }
    return ck_int8_quantum_of(magnitude);
}

/// One tile of an int8 product: up to CK_INT8_TILE_ROWS rows by a run of panels, over all inputs.
typedef struct {
    /// The first panel.
    const char *panels;
    /// Distance between panels, in bytes.
    size_t panel_bytes;
    /// Groups of inputs.
    size_t groups;
    /// Rows of CK_INT8_GROUP * groups bytes, as ck_quantize_rows wrote them for the same level.
    const char *x;
    size_t x_stride;
    /// One per row.
    const float *row_scales;
    /// One per column, from the first panel's first column on.
    const float *scales;
    /// One per column, as `scales`.
    const int32_t *compensation;
    float *y;
    size_t y_stride;
    /// Columns of y from the first panel's first column on.
    size_t columns;
    int relu;
    /// Weights to prefetch while this tile is computed, and how many bytes of them with each group; null to prefetch a
    /// page ahead in this tile's own panels.
    const char *ahead;
    size_t ahead_step;
} ck_int8_tile;

typedef void (*ck_int8_tile_function)(const ck_int8_tile *tile, size_t rows, size_t panels);

/// The result of one column of one row: float operations in this order on every instruction set.
CK_INLINE float ck_int8_result(int32_t sum, float row_scale, float scale, int relu) {
    const float factor = row_scale * scale;
    const float result = (float)sum * factor;
    return relu && result < 0 ? 0 : result;
}

/// Computes a tile with a function that covers one whole panel and `height` rows at most: panel by panel, in groups of
/// rows of nearly equal height. The missing columns of the last panel go to a spare buffer.
CK_INLINE void ck_int8_by_panels(const ck_int8_tile *tile, size_t rows, size_t panels, size_t height,
                                 void (*panel)(const ck_int8_tile *tile, size_t rows)) {
    float spare[CK_INT8_TILE_ROWS * CK_PANEL_COLUMNS];
    ck_int8_tile one = *tile;
    for (size_t index = 0; index < panels; index++) {
        const int partial = one.columns < CK_PANEL_COLUMNS;
        ck_int8_tile part = one;
        if (partial) {
            part.y = spare;
            part.y_stride = CK_PANEL_COLUMNS;
        }
        for (size_t row = 0; row < rows;) {
            const size_t left = rows - row;
            const size_t groups = (left + height - 1) / height;
            const size_t taken = (left + groups - 1) / groups;
            panel(&part, taken);
            part.x += taken * part.x_stride;
            part.ahead += part.ahead ? 2 * part.groups * part.ahead_step : 0;
            part.row_scales += taken;
            part.y += taken * part.y_stride;
            row += taken;
        }
        if (partial) {
            for (size_t row = 0; row < rows; row++) {
                memcpy(one.y + row * one.y_stride, spare + row * CK_PANEL_COLUMNS, one.columns * sizeof(float));
            }
        }
        one.panels += one.panel_bytes;
        one.scales += CK_PANEL_COLUMNS;
        one.compensation += CK_PANEL_COLUMNS;
        one.y += CK_PANEL_COLUMNS;
        one.columns -= CK_PANEL_COLUMNS;
    }
}

void ck_int8_tile_scalar(const ck_int8_tile *tile, size_t rows, size_t panels);
#if defined(__x86_64__)
void ck_int8_tile_avx2(const ck_int8_tile *tile, size_t rows, size_t panels);
void ck_int8_tile_vnni(const ck_int8_tile *tile, size_t rows, size_t panels);

/// Quantises `count` numbers into bytes that are 128 too high.
void ck_int8_quantize_vnni(const float *x, size_t count, float inverse, uint8_t *q);
#endif
#if defined(__aarch64__)
void ck_int8_tile_neon(const ck_int8_tile *tile, size_t rows, size_t panels);
void ck_int8_tile_dot(const ck_int8_tile *tile, size_t rows, size_t panels);
#endif

#endif
