// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

#include <math.h>

/// The reference: plain loops. The compiler may run the columns of a panel side by side (it does on AArch64, which has
/// fused multiply-adds in its base set); it may not touch the order within a chain.
CK_INLINE void scalar_row(const ck_tile *tile, size_t row, size_t panel, int bf16) {
    const float *x = tile->x + row;
    const size_t first = panel * CK_PANEL_COLUMNS;
    const size_t width = tile->columns - first < CK_PANEL_COLUMNS ? tile->columns - first : CK_PANEL_COLUMNS;
    float *y = tile->y + row * tile->y_stride + first;
    float sums[CK_PANEL_COLUMNS] = {0};
    if (tile->accumulate) {
        memcpy(sums, y, width * sizeof(float));
    }
    if (bf16) {
        const uint16_t *weights = (const uint16_t *)tile->panels + panel * tile->panel_stride;
        for (size_t k = 0; k < tile->inputs; k++) {
            for (size_t c = 0; c < CK_PANEL_COLUMNS; c++) {
                sums[c] = fmaf(x[k * tile->x_step], ck_bf16_to_f32(weights[k * CK_PANEL_COLUMNS + c]), sums[c]);
            }
        }
    } else {
        const float *weights = (const float *)tile->panels + panel * tile->panel_stride;
        for (size_t k = 0; k < tile->inputs; k++) {
            for (size_t c = 0; c < CK_PANEL_COLUMNS; c++) {
                sums[c] = fmaf(x[k * tile->x_step], weights[k * CK_PANEL_COLUMNS + c], sums[c]);
            }
        }
    }
    for (size_t c = 0; c < width; c++) {
        y[c] = tile->relu && sums[c] < 0 ? 0 : sums[c];
    }
}

void ck_tile_scalar(const ck_tile *tile, size_t rows, size_t panels, int type) {
    for (size_t panel = 0; panel < panels; panel++) {
        for (size_t row = 0; row < rows; row++) {
            if (type == CK_TYPE_BF16) {
                scalar_row(tile, row, panel, 1);
            } else {
                scalar_row(tile, row, panel, 0);
            }
        }
    }
}
