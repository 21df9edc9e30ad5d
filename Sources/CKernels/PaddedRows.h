// SPDX-License-Identifier: Apache-2.0

// Rows of attention's scores, whose numbers are followed by room up to a multiple of sixteen. They are computed sixteen numbers at
// a time, and then hold zeros behind the keys that their query sees.

#ifndef SWITCHYARD_CKERNELS_PADDED_ROWS_H
#define SWITCHYARD_CKERNELS_PADDED_ROWS_H

#include "Exponential.h"

CK_INLINE float16 load16(const float *x) {
    float16 values;
    memcpy(&values, x, sizeof values);
    return values;
}

CK_INLINE void store16(float16 values, float *x) { memcpy(x, &values, sizeof values); }

/// Less than sixteen numbers, then zeros.
CK_INLINE float16 load_first16(const float *x, size_t count) {
    float lanes[LANES] = {0};
    size_t i = 0;
    for (size_t half = LANES / 2; half > 0; half /= 2) {
        if (count & half) {
            memcpy(lanes + i, x + i, half * sizeof(float));
            i += half;
        }
    }
    return load16(lanes);
}

CK_INLINE float greatest_lane(float16 x) {
    for (size_t half = LANES / 2; half > 0; half /= 2) {
        float16 other = x;
        for (size_t lane = 0; lane < half; lane++) {
            other[lane] = x[lane + half];
        }
        const mask16 is_more = other > x;
        x = (float16)(((mask16)other & is_more) | ((mask16)x & ~is_more));
    }
    return x[0];
}

/// softmax(row + bias) over the first `count` numbers, by the same operations as ck_softmax's.
CK_INLINE void softmax_row(float *row, const float *bias, size_t count, size_t stride) {
    const size_t rest = count % LANES;
    const size_t whole = count - rest;
    float16 most = (float16){0} - INFINITY;
    for (size_t i = 0; i < count; i += LANES) {
        float16 part = load16(row + i);
        if (bias) {
            part += i < whole ? load16(bias + i) : load_first16(bias + i, rest);
        }
        store16(part, row + i);
        const mask16 index = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        const mask16 is_more = (part > most) & (index < (int32_t)(i < whole ? LANES : rest));
        most = (float16)(((mask16)part & is_more) | ((mask16)most & ~is_more));
    }
    const float highest = greatest_lane(most);
    float16 sums = {0};
    for (size_t i = 0; i < count; i += LANES) {
        float16 part = exp_negative16(load16(row + i) - highest);
        if (i >= whole) {
            part = keep_first16(part, rest);
        }
        store16(part, row + i);
        sums += part;
    }
    float lanes[LANES];
    store16(sums, lanes);
    const float sum = tree_sum(lanes);
    for (size_t i = 0; i < stride; i += LANES) {
        const size_t left = i < count ? count - i : 0;
        store16(keep_first16(load16(row + i) / sum, left < LANES ? left : LANES), row + i);
    }
}

#endif
