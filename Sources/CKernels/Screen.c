// SPDX-License-Identifier: Apache-2.0

// Bounds on the products of int8 copies: how far a sum may be from the exact one.

#include "Int8.h"

#include <math.h>

/// Rounds to the nearest bfloat16, ties to even, and back.
CK_INLINE float through_bf16(float value) {
    uint16_t bits;
    ck_round_bf16(&value, 1, &bits);
    return ck_bf16_to_f32(bits);
}

void ck_int8_distance(const void *source, int source_type, int stored_type, size_t inputs, float *norm,
                      float *distance) {
    float wide[CK_INT8_WIDE];
    const char *bytes = source;
    const size_t element = ck_source_bytes(source_type);
    const ck_int8_quantum quantum = ck_int8_row_quantum(bytes, source_type, inputs);
    double squares = 0;
    double rest_squares = 0;
    for (size_t begin = 0; begin < inputs; begin += CK_INT8_WIDE) {
        const size_t count = inputs - begin < CK_INT8_WIDE ? inputs - begin : CK_INT8_WIDE;
        ck_widen(bytes + begin * element, source_type, count, wide);
        for (size_t i = 0; i < count; i++) {
            const double copy = (double)(int8_t)ck_int8_round(wide[i], quantum.inverse) * quantum.scale;
            const double stored = stored_type == CK_TYPE_BF16 ? through_bf16(wide[i]) : wide[i];
            squares += stored * stored;
            rest_squares += (stored - copy) * (stored - copy);
        }
    }
    // A little more than the doubles say, so that rounding them to floats never makes them less.
    *norm = (float)(sqrt(squares) * 1.000001);
    *distance = (float)(sqrt(rest_squares) * 1.000001);
}

void ck_int8_rest(const float *x, size_t inputs, float *rest, float *norm, float *distance) {
    const ck_int8_quantum quantum = ck_int8_quantum_of(ck_int8_magnitude(x, inputs, 0));
    double squares = 0;
    for (size_t k = 0; k < inputs; k++) {
        rest[k] = x[k] - (float)(int8_t)ck_int8_round(x[k], quantum.inverse) * quantum.scale;
        squares += (double)x[k] * x[k];
    }
    const ck_int8_quantum second = ck_int8_quantum_of(ck_int8_magnitude(rest, inputs, 0));
    double left = 0;
    for (size_t k = 0; k < inputs; k++) {
        const double copy = (double)(int8_t)ck_int8_round(rest[k], second.inverse) * second.scale;
        left += (rest[k] - copy) * (rest[k] - copy);
    }
    // `rest` itself was rounded, by less than 2^-22 of each element.
    *norm = (float)(sqrt(squares) * 1.000001);
    *distance = (float)((sqrt(left) + sqrt(squares) * 0x1p-22) * 1.000001);
}

CK_INLINE void screen(const float *first, const float *second, const float *norms, const float *distances,
                      float norm_factor, float distance_factor, size_t count, float *highest, uint8_t *panels) {
    float lowest[16];
    for (size_t lane = 0; lane < 16; lane++) {
        lowest[lane] = -INFINITY;
    }
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        for (size_t lane = 0; lane < 16; lane++) {
            const size_t at = i + lane;
            const float sum = first[at] + second[at];
            const float bound = (norm_factor * norms[at] + distance_factor * distances[at]) * 1.0001f;
            const float low = sum - bound;
            lowest[lane] = low > lowest[lane] ? low : lowest[lane];
            highest[at] = sum + bound;
        }
    }
    for (size_t lane = 0; i < count; i++, lane++) {
        const float sum = first[i] + second[i];
        const float bound = (norm_factor * norms[i] + distance_factor * distances[i]) * 1.0001f;
        const float low = sum - bound;
        lowest[lane] = low > lowest[lane] ? low : lowest[lane];
        highest[i] = sum + bound;
    }
    float least = lowest[0];
    for (size_t lane = 1; lane < 16; lane++) {
        least = lowest[lane] > least ? lowest[lane] : least;
    }
    for (size_t begin = 0, panel = 0; begin < count; begin += CK_PANEL_COLUMNS, panel++) {
        const size_t end = count - begin < CK_PANEL_COLUMNS ? count : begin + CK_PANEL_COLUMNS;
        int any = 0;
        for (size_t at = begin; at < end; at++) {
            // Written so that NaN stays in.
            any |= !(highest[at] < least);
        }
        panels[panel] = (uint8_t)any;
    }
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void screen_avx2(const float *first, const float *second, const float *norms,
                                                            const float *distances, float norm_factor,
                                                            float distance_factor, size_t count, float *highest,
                                                            uint8_t *panels) {
    screen(first, second, norms, distances, norm_factor, distance_factor, count, highest, panels);
}
#endif

void ck_screen(int level, const float *first, const float *second, const float *norms, const float *distances,
               float norm_factor, float distance_factor, size_t count, float *highest, uint8_t *panels) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX2) {
        screen_avx2(first, second, norms, distances, norm_factor, distance_factor, count, highest, panels);
        return;
    }
#endif
    (void)level;
    screen(first, second, norms, distances, norm_factor, distance_factor, count, highest, panels);
}
