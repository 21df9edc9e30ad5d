// SPDX-License-Identifier: Apache-2.0

// What losses over a vocabulary share: logarithm, greatest number, and sums in float64 of eight lanes that are then added as a
// tree. The same bits at every level.

#ifndef SWITCHYARD_CKERNELS_SOFTMAX_H
#define SWITCHYARD_CKERNELS_SOFTMAX_H

#include "Exponential.h"

#define DOUBLES 8

typedef double double8 __attribute__((vector_size(64)));

CK_INLINE double tree_sum8(double8 lanes) {
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/// The natural logarithm of a positive, normal number: x = m 2^e with m within sqrt(1/2) ... sqrt(2), and
/// log m = 2 atanh((m - 1) / (m + 1)) by its series, whose remainder is below 1e-17.
CK_INLINE double logarithm(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int64_t exponent = (int64_t)((bits >> 52) & 0x7FF) - 1023;
    bits = (bits & 0x000FFFFFFFFFFFFFull) | 0x3FF0000000000000ull;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent++;
    }
    const double s = (m - 1.0) / (m + 1.0);
    const double square = s * s;
    double sum = 0;
    for (int term = 23; term >= 1; term -= 2) {
        sum = sum * square + 1.0 / (double)term;
    }
    return 2.0 * s * sum + (double)exponent * 0.6931471805599453;
}

/// The greatest number; those that are no numbers do not count.
CK_INLINE float greatest(const float *x, size_t count) {
    float16 most = (float16){0} - INFINITY;
    for (size_t i = 0; i < count; i += LANES) {
        float16 part = most;
        if (i + LANES <= count) {
            memcpy(&part, x + i, sizeof part);
        } else {
            memcpy(&part, x + i, (count - i) * sizeof(float));
        }
        const mask16 is_more = part > most;
        most = (float16)(((mask16)part & is_more) | ((mask16)most & ~is_more));
    }
    float highest = most[0];
    for (size_t lane = 1; lane < LANES; lane++) {
        highest = most[lane] > highest ? most[lane] : highest;
    }
    return highest;
}

/// Adds sixteen numbers to eight lanes: the first half, then the second.
CK_INLINE double8 add16(double8 lanes, float16 x) {
    lanes += __builtin_convertvector(__builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7), double8);
    lanes += __builtin_convertvector(__builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15), double8);
    return lanes;
}

#endif
