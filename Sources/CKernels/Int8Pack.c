// SPDX-License-Identifier: Apache-2.0

#include "Int8.h"

static void pack_column(const char *row, int source_type, size_t inputs, uint8_t *column, float *scale,
                        int32_t *compensation) {
    float wide[CK_INT8_WIDE];
    const size_t element = ck_source_bytes(source_type);
    const ck_int8_quantum quantum = ck_int8_row_quantum(row, source_type, inputs);
    int32_t sum = 0;
    if (quantum.inverse != 0) {
        for (size_t begin = 0; begin < inputs; begin += CK_INT8_WIDE) {
            const size_t count = inputs - begin < CK_INT8_WIDE ? inputs - begin : CK_INT8_WIDE;
            ck_widen(row + begin * element, source_type, count, wide);
            for (size_t i = 0; i < count; i++) {
                const size_t k = begin + i;
                const uint8_t rounded = ck_int8_round(wide[i], quantum.inverse);
                column[k / CK_INT8_GROUP * CK_INT8_GROUP_BYTES + k % CK_INT8_GROUP] = rounded;
                sum += (int8_t)rounded;
            }
        }
    }
    *scale = quantum.scale;
    *compensation = -128 * sum;
}

void ck_pack_int8(const void *source, int source_type, size_t inputs, size_t outputs, void *panels, float *scales,
                  int32_t *compensation, size_t panel_begin, size_t panel_end) {
    const size_t panel_bytes = ck_int8_groups(inputs) * CK_INT8_GROUP_BYTES;
    for (size_t panel = panel_begin; panel < panel_end; panel++) {
        uint8_t *at = (uint8_t *)panels + panel * panel_bytes;
        memset(at, 0, panel_bytes);
        for (size_t c = 0; c < CK_PANEL_COLUMNS; c++) {
            const size_t output = panel * CK_PANEL_COLUMNS + c;
            if (output < outputs) {
                pack_column((const char *)source + output * inputs * ck_source_bytes(source_type), source_type, inputs,
                            at + c * CK_INT8_GROUP, scales + output, compensation + output);
            } else {
                scales[output] = 0;
                compensation[output] = 0;
            }
        }
    }
}
