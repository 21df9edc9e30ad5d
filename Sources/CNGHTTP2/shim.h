// SPDX-License-Identifier: Apache-2.0

#include <nghttp2/nghttp2.h>
#include <string.h>

/// Whether two of the library's shared buffers hold the same bytes.
static inline int switchyard_rcbuf_equal(nghttp2_rcbuf *one, nghttp2_rcbuf *other) {
    if (one == other) return 1;
    const nghttp2_vec first = nghttp2_rcbuf_get_buf(one), second = nghttp2_rcbuf_get_buf(other);
    return first.len == second.len && memcmp(first.base, second.base, first.len) == 0;
}
