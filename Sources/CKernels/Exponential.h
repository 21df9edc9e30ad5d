// SPDX-License-Identifier: Apache-2.0

// Vectors of sixteen floats and the exponential function, by operations that give the same bits at every level. Contraction
// is off wherever this is included.

#ifndef SWITCHYARD_CKERNELS_EXPONENTIAL_H
#define SWITCHYARD_CKERNELS_EXPONENTIAL_H

#include "Internal.h"

#include <math.h>

#pragma STDC FP_CONTRACT OFF

#define LANES 16

// Functions that take or return these are always inlined, so no calling convention is affected.
#pragma clang diagnostic ignored "-Wpsabi"
typedef float float4 __attribute__((vector_size(16)));
typedef float float8 __attribute__((vector_size(32)));
typedef float float16 __attribute__((vector_size(64)));
typedef uint32_t bits16 __attribute__((vector_size(64)));
typedef int32_t mask16 __attribute__((vector_size(64)));
typedef uint16_t halves16 __attribute__((vector_size(32)));

CK_INLINE float tree_sum(const float lanes[LANES]) {
    float eight[8], four[4];
    for (int i = 0; i < 8; i++) {
        eight[i] = lanes[i] + lanes[i + 8];
    }
    for (int i = 0; i < 4; i++) {
        four[i] = eight[i] + eight[i + 4];
    }
    return (four[0] + four[2]) + (four[1] + four[3]);
}

/// exp(x) for x <= 0: x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts (Cody and Waite, "Software Manual for the
/// Elementary Functions", 1980, chapter 6), then the Taylor polynomial of degree 7 in r, whose remainder is below
/// 6e-9, and an exponent set by hand.
CK_INLINE float exp_negative(float x) {
    const float bounded = x < -87.3f ? -87.3f : x;
    // Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits.
    const float shifted = fmaf(bounded, 1.44269504f, 12582912.0f);
    const float n = shifted - 12582912.0f;
    float r = fmaf(n, -0.693359375f, bounded);
    r = fmaf(n, 2.12194440e-4f, r);
    float p = 1.98412698e-4f;
    p = fmaf(p, r, 1.38888889e-3f);
    p = fmaf(p, r, 8.33333333e-3f);
    p = fmaf(p, r, 4.16666667e-2f);
    p = fmaf(p, r, 1.66666667e-1f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    uint32_t scale_bits = (bits << 23) + 0x3F800000u;
    float scale;
    memcpy(&scale, &scale_bits, sizeof scale);
    // Written as a comparison that a NaN fails, so that NaN comes out as NaN.
    return x < -87.3f ? 0.0f : p * scale;
}

/// exp_negative of sixteen numbers, by the same operations.
CK_INLINE float16 exp_negative16(float16 x) {
    const float16 least = {-87.3f, -87.3f, -87.3f, -87.3f, -87.3f, -87.3f, -87.3f, -87.3f,
                           -87.3f, -87.3f, -87.3f, -87.3f, -87.3f, -87.3f, -87.3f, -87.3f};
    const float16 zero = {0};
    const mask16 is_small = x < least;
    const float16 bounded = (float16)(((mask16)least & is_small) | ((mask16)x & ~is_small));
    const float16 shifted = __builtin_elementwise_fma(bounded, zero + 1.44269504f, zero + 12582912.0f);
    const float16 n = shifted - 12582912.0f;
    float16 r = __builtin_elementwise_fma(n, zero - 0.693359375f, bounded);
    r = __builtin_elementwise_fma(n, zero + 2.12194440e-4f, r);
    float16 p = zero + 1.98412698e-4f;
    p = __builtin_elementwise_fma(p, r, zero + 1.38888889e-3f);
    p = __builtin_elementwise_fma(p, r, zero + 8.33333333e-3f);
    p = __builtin_elementwise_fma(p, r, zero + 4.16666667e-2f);
    p = __builtin_elementwise_fma(p, r, zero + 1.66666667e-1f);
    p = __builtin_elementwise_fma(p, r, zero + 0.5f);
    p = __builtin_elementwise_fma(p, r, zero + 1.0f);
    p = __builtin_elementwise_fma(p, r, zero + 1.0f);
    const float16 scale = (float16)(((bits16)shifted << 23) + 0x3F800000u);
    return (float16)((mask16)(p * scale) & ~is_small);
}

/// The first lanes, and zeros for the others.
CK_INLINE float16 keep_first16(float16 x, size_t lanes) {
    const mask16 index = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return (float16)((mask16)x & (index < (int32_t)lanes));
}

#endif
