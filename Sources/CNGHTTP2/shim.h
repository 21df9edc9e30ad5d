// SPDX-License-Identifier: Apache-2.0

#include <nghttp2/nghttp2.h>
#include <string.h>

/// Whether two places hold the same bytes.
static inline int switchyard_bytes_equal(const void *one, const void *other, size_t count) {
    return memcmp(one, other, count) == 0;
}
