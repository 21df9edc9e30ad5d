// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

#include <math.h>

/// The reference: plain loops. The compiler may run the columns of a panel side by side (it does on AArch64, which has
/// fused multiply-adds in its base set); it may not touch the order within a chain.
CK_INLINE void scalar_row(const ck_tile *tile, size_t rows, size_t row, size_t width, int bf16) {
    const float *x = tile->x + row;
    float sums[CK_PANEL_COLUMNS] = {0};
    if (tile->from) {
        memcpy(sums, tile->from + row * tile->from_stride, width * sizeof(float));
    }
    if (bf16) {
        const uint16_t *weights = tile->panels;
        for (size_t k = 0; k < tile->inputs; k++) {
            for (size_t c = 0; c < width; c++) {
                sums[c] = fmaf(x[k * rows], ck_bf16_to_f32(weights[k * CK_PANEL_COLUMNS + c]), sums[c]);
            }
        }
    } else {
        const float *weights = tile->panels;
        for (size_t k = 0; k < tile->inputs; k++) {
            for (size_t c = 0; c < width; c++) {
                sums[c] = fmaf(x[k * rows], weights[k * CK_PANEL_COLUMNS + c], sums[c]);
            }
        }
    }
    float *to = tile->to + row * tile->to_stride;
    for (size_t c = 0; c < width; c++) {
        to[c] = tile->relu && sums[c] < 0 ? 0 : sums[c];
    }
}

void ck_tile_scalar(const ck_tile *tile, size_t rows, size_t panels, int type) {
    const size_t width = panels == 0 ? CK_PANEL_COLUMNS / 2 : CK_PANEL_COLUMNS;
    for (size_t row = 0; row < rows; row++) {
        if (type == CK_TYPE_BF16) {
            scalar_row(tile, rows, row, width, 1);
        } else {
            scalar_row(tile, rows, row, width, 0);
        }
    }
}
