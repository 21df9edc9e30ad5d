// SPDX-License-Identifier: Apache-2.0

#include "Internal.h"

CK_INLINE float f16_to_f32(uint16_t bits) {
    const uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
    const uint32_t exponent = (bits >> 10) & 0x1F;
    uint32_t fraction = bits & 0x3FF;
    uint32_t wide;
    if (exponent == 0x1F) {
        wide = sign | 0x7F800000 | (fraction << 13);
    } else if (exponent != 0) {
        wide = sign | ((exponent + 112) << 23) | (fraction << 13);
    } else if (fraction == 0) {
        wide = sign;
    } else {
        // A subnormal: shift the leading one into its place.
        uint32_t shifted = 113;
        while ((fraction & 0x400) == 0) {
            fraction <<= 1;
            shifted--;
        }
        wide = sign | (shifted << 23) | ((fraction & 0x3FF) << 13);
    }
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/// Rounds to nearest even; a NaN keeps its sign and stays a NaN.
CK_INLINE uint16_t f32_to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) {
        return (uint16_t)((bits >> 16) | 0x40);
    }
    return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

CK_INLINE float load_f32(const char *source, int type, size_t index) {
    if (type == CK_TYPE_F32) {
        float value;
        memcpy(&value, source + index * 4, sizeof value);
        return value;
    }
    uint16_t bits;
    memcpy(&bits, source + index * 2, sizeof bits);
    return type == CK_TYPE_BF16 ? ck_bf16_to_f32(bits) : f16_to_f32(bits);
}

CK_INLINE void widen(const char *source, int type, size_t count, float *destination) {
    for (size_t i = 0; i < count; i++) {
        destination[i] = load_f32(source, type, i);
    }
}

void ck_widen(const void *source, int source_type, size_t count, float *destination) {
    switch (source_type) {
    case CK_TYPE_F32:
        memcpy(destination, source, count * sizeof(float));
        break;
    case CK_TYPE_BF16:
        widen(source, CK_TYPE_BF16, count, destination);
        break;
    default:
        widen(source, CK_TYPE_F16, count, destination);
        break;
    }
}

void ck_round_bf16(const float *source, size_t count, void *destination) {
    char *target = destination;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, source + i, sizeof bits);
        // Both outcomes are computed and one is chosen, so that the compiler puts several elements into one register.
        const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
        const uint32_t nan = (bits >> 16) | 0x40;
        const uint16_t half = (uint16_t)((bits & 0x7FFFFFFF) > 0x7F800000 ? nan : rounded);
        memcpy(target + i * sizeof half, &half, sizeof half);
    }
}

/// Inputs taken at a time: a cache line or so of every source row.
#define PACK_BLOCK 32

CK_INLINE void pack(const char *source, int source_type, size_t inputs, size_t outputs, char *panels, int type,
                    size_t panel_begin, size_t panel_end) {
    for (size_t panel = panel_begin; panel < panel_end; panel++) {
        const size_t first = panel * CK_PANEL_COLUMNS;
        const size_t width = outputs - first < CK_PANEL_COLUMNS ? outputs - first : CK_PANEL_COLUMNS;
        for (size_t begin = 0; begin < inputs; begin += PACK_BLOCK) {
            const size_t end = inputs - begin < PACK_BLOCK ? inputs : begin + PACK_BLOCK;
            for (size_t k = begin; k < end; k++) {
                const size_t at = (panel * inputs + k) * CK_PANEL_COLUMNS;
                for (size_t c = 0; c < CK_PANEL_COLUMNS; c++) {
                    const size_t from = (first + c) * inputs + k;
                    if (type == CK_TYPE_BF16 && source_type == CK_TYPE_BF16) {
                        uint16_t bits = 0;
                        if (c < width) {
                            memcpy(&bits, source + from * 2, sizeof bits);
                        }
                        ((uint16_t *)panels)[at + c] = bits;
                    } else {
                        const float value = c < width ? load_f32(source, source_type, from) : 0;
                        if (type == CK_TYPE_BF16) {
                            ((uint16_t *)panels)[at + c] = f32_to_bf16(value);
                        } else {
                            ((float *)panels)[at + c] = value;
                        }
                    }
                }
            }
        }
    }
}

void ck_pack(const void *source, int source_type, size_t inputs, size_t outputs, void *panels, int type,
             size_t panel_begin, size_t panel_end) {
    if (type == CK_TYPE_BF16) {
        if (source_type == CK_TYPE_BF16) {
            pack(source, CK_TYPE_BF16, inputs, outputs, panels, CK_TYPE_BF16, panel_begin, panel_end);
        } else if (source_type == CK_TYPE_F32) {
            pack(source, CK_TYPE_F32, inputs, outputs, panels, CK_TYPE_BF16, panel_begin, panel_end);
        } else {
            pack(source, CK_TYPE_F16, inputs, outputs, panels, CK_TYPE_BF16, panel_begin, panel_end);
        }
    } else if (source_type == CK_TYPE_BF16) {
        pack(source, CK_TYPE_BF16, inputs, outputs, panels, CK_TYPE_F32, panel_begin, panel_end);
    } else if (source_type == CK_TYPE_F32) {
        pack(source, CK_TYPE_F32, inputs, outputs, panels, CK_TYPE_F32, panel_begin, panel_end);
    } else {
        pack(source, CK_TYPE_F16, inputs, outputs, panels, CK_TYPE_F32, panel_begin, panel_end);
    }
}

/// Four floats anywhere in memory.
typedef float four_floats __attribute__((vector_size(16), aligned(4)));

/// Four rows of four become four columns, `step` floats apart.
CK_INLINE void transpose_four(const float *x, size_t stride, float *target, size_t step) {
    const four_floats a = *(const four_floats *)x;
    const four_floats b = *(const four_floats *)(x + stride);
    const four_floats c = *(const four_floats *)(x + 2 * stride);
    const four_floats d = *(const four_floats *)(x + 3 * stride);
    const four_floats low_ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    const four_floats high_ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const four_floats low_cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    const four_floats high_cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(four_floats *)target = __builtin_shufflevector(low_ab, low_cd, 0, 1, 4, 5);
    *(four_floats *)(target + step) = __builtin_shufflevector(low_ab, low_cd, 2, 3, 6, 7);
    *(four_floats *)(target + 2 * step) = __builtin_shufflevector(high_ab, high_cd, 0, 1, 4, 5);
    *(four_floats *)(target + 3 * step) = __builtin_shufflevector(high_ab, high_cd, 2, 3, 6, 7);
}

/// A panel of a matrix whose columns are the rows of `source`, the first of which is `source` itself.
static void pack_columns(const float *source, size_t stride, size_t depth, size_t width, float *panel) {
    for (size_t begin = 0; begin < depth; begin += PACK_BLOCK) {
        const size_t end = depth - begin < PACK_BLOCK ? depth : begin + PACK_BLOCK;
        for (size_t c = 0; c < CK_PANEL_COLUMNS; c += 4) {
            size_t k = begin;
            for (; c + 4 <= width && k + 4 <= end; k += 4) {
                transpose_four(source + c * stride + k, stride, panel + k * CK_PANEL_COLUMNS + c, CK_PANEL_COLUMNS);
            }
            for (; k < end; k++) {
                for (size_t lane = c; lane < c + 4; lane++) {
                    panel[k * CK_PANEL_COLUMNS + lane] = lane < width ? source[lane * stride + k] : 0;
                }
            }
        }
    }
}

/// Panels that are packed together of a matrix whose rows lie as they are: so much of each row is read at once.
#define PACK_PANELS 8

/// Some panels of a matrix whose rows are the rows of `source`, which begins at the first panel's first column.
static void pack_rows(const float *source, size_t stride, size_t depth, size_t columns, float *panels) {
    const size_t whole = columns / CK_PANEL_COLUMNS;
    const size_t rest = columns % CK_PANEL_COLUMNS;
    for (size_t k = 0; k < depth; k++) {
        const float *row = source + k * stride;
        float *target = panels + k * CK_PANEL_COLUMNS;
        for (size_t panel = 0; panel < whole; panel++) {
            memcpy(target, row, CK_PANEL_COLUMNS * sizeof(float));
            row += CK_PANEL_COLUMNS;
            target += depth * CK_PANEL_COLUMNS;
        }
        if (rest > 0) {
            memcpy(target, row, rest * sizeof(float));
            memset(target + rest, 0, (CK_PANEL_COLUMNS - rest) * sizeof(float));
        }
    }
}

void ck_pack_panels(const float *source, size_t stride, int transposed, size_t depth, size_t columns, float *panels,
                    size_t panel_begin, size_t panel_end) {
    const size_t step = transposed ? 1 : PACK_PANELS;
    for (size_t panel = panel_begin; panel < panel_end; panel += step) {
        const size_t first = panel * CK_PANEL_COLUMNS;
        const size_t most = (panel_end - panel < step ? panel_end - panel : step) * CK_PANEL_COLUMNS;
        const size_t width = columns - first < most ? columns - first : most;
        float *target = panels + panel * depth * CK_PANEL_COLUMNS;
        if (transposed) {
            pack_columns(source + first * stride, stride, depth, width, target);
        } else {
            pack_rows(source + first, stride, depth, width, target);
        }
    }
}
