// SPDX-License-Identifier: Apache-2.0

// The softmax of one row, by operations that give the same bits at every level.

#ifndef SWITCHYARD_CKERNELS_ATTENTION_ROWS_H
#define SWITCHYARD_CKERNELS_ATTENTION_ROWS_H

#include "Exponential.h"

/// x = exp(x - max(x)) / sum, in place; returns 1 / sum.
CK_INLINE float softmax(float *x, size_t count) {
    if (count == 0) {
        return 0;
    }
    float lanes[LANES];
    float16 most = (float16){0} - INFINITY;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        float16 part;
        memcpy(&part, x + i, sizeof part);
        // False where an element is not a number, which then shows in the sum.
        const mask16 is_more = part > most;
        most = (float16)(((mask16)part & is_more) | ((mask16)most & ~is_more));
    }
    memcpy(lanes, &most, sizeof lanes);
    for (size_t lane = 0; i + lane < count; lane++) {
        lanes[lane] = x[i + lane] > lanes[lane] ? x[i + lane] : lanes[lane];
    }
    for (size_t half = LANES / 2; half > 0; half /= 2) {
        for (size_t lane = 0; lane < half; lane++) {
            lanes[lane] = lanes[lane + half] > lanes[lane] ? lanes[lane + half] : lanes[lane];
        }
    }
    const float highest = lanes[0];
    float16 sums = {0};
    i = 0;
    for (; i + LANES <= count; i += LANES) {
        float16 part;
        memcpy(&part, x + i, sizeof part);
        part = exp_negative16(part - highest);
        memcpy(x + i, &part, sizeof part);
        sums += part;
    }
    if (i < count) {
        float16 part = (float16){0} + highest;
        memcpy(&part, x + i, (count - i) * sizeof(float));
        part = keep_first16(exp_negative16(part - highest), count - i);
        memcpy(x + i, &part, (count - i) * sizeof(float));
        sums += part;
    }
    memcpy(lanes, &sums, sizeof lanes);
    const float sum = tree_sum(lanes);
    for (size_t j = 0; j < count; j++) {
        x[j] = x[j] / sum;
    }
    return 1.0f / sum;
}

#endif
