// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

/// Four floats anywhere in memory.
typedef float four_floats __attribute__((vector_size(16), aligned(4)));

/// Lays four rows side by side: packed[k * step + r] = row r's input k.
static void interleave_four(const float *x, size_t x_stride, size_t inputs, float *packed, size_t step) {
    size_t k = 0;
    for (; k + 4 <= inputs; k += 4) {
        const four_floats a = *(const four_floats *)(x + k);
        const four_floats b = *(const four_floats *)(x + x_stride + k);
        const four_floats c = *(const four_floats *)(x + 2 * x_stride + k);
        const four_floats d = *(const four_floats *)(x + 3 * x_stride + k);
        const four_floats low_ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
        const four_floats high_ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
        const four_floats low_cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
        const four_floats high_cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
        float *target = packed + k * step;
        *(four_floats *)target = __builtin_shufflevector(low_ab, low_cd, 0, 1, 4, 5);
        *(four_floats *)(target + step) = __builtin_shufflevector(low_ab, low_cd, 2, 3, 6, 7);
        *(four_floats *)(target + 2 * step) = __builtin_shufflevector(high_ab, high_cd, 0, 1, 4, 5);
        *(four_floats *)(target + 3 * step) = __builtin_shufflevector(high_ab, high_cd, 2, 3, 6, 7);
    }
    for (; k < inputs; k++) {
        for (size_t row = 0; row < 4; row++) {
            packed[k * step + row] = x[row * x_stride + k];
        }
    }
}

static void interleave(const float *x, size_t x_stride, size_t height, size_t inputs, float *packed) {
    if (height < 4) {
        for (size_t row = 0; row < height; row++) {
            for (size_t k = 0; k < inputs; k++) {
                packed[k * height + row] = x[row * x_stride + k];
            }
        }
        return;
    }
    for (size_t row = 0; row < height; row += 4) {
        // The last four may be laid down in part for a second time.
        const size_t first = row + 4 <= height ? row : height - 4;
        interleave_four(x + first * x_stride, x_stride, inputs, packed + first, height);
    }
}

/// The same for the columns of a row-major matrix; `height` is a constant at each call.
CK_INLINE void gather_rows(const float *x, size_t x_stride, const size_t height, size_t inputs, float *packed) {
    for (size_t k = 0; k < inputs; k++) {
        memcpy(packed + k * height, x + k * x_stride, height * sizeof(float));
    }
}

#define GATHER_CASE(n)                                                                                                 \
    case n:                                                                                                            \
        gather_rows(x, x_stride, n, inputs, packed);                                                                   \
        break;

static void gather(const float *x, size_t x_stride, size_t height, size_t inputs, float *packed) {
    switch (height) {
        GATHER_CASE(1)
        GATHER_CASE(2)
        GATHER_CASE(3)
        GATHER_CASE(4)
        GATHER_CASE(5)
        GATHER_CASE(6)
        GATHER_CASE(7)
        GATHER_CASE(8)
        GATHER_CASE(9)
        GATHER_CASE(10)
        GATHER_CASE(11)
        GATHER_CASE(12)
    }
}

void ck_interleave(const float *x, size_t x_stride, int transposed, size_t height, size_t inputs, float *packed) {
    if (transposed) {
        gather(x, x_stride, height, inputs, packed);
    } else {
        interleave(x, x_stride, height, inputs, packed);
    }
}
