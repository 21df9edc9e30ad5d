// SPDX-License-Identifier: Apache-2.0

#include <zlib.h>

// The library's own names are macros with casts and sizes, which Swift does not see.

/// Prepares a stream for inflating gzip; returns Z_OK or an error.
static inline int switchyard_gunzip_begin(z_stream *stream) { return inflateInit2(stream, 15 + 16); }

/// Prepares a stream for deflating to gzip; returns Z_OK or an error.
static inline int switchyard_gzip_begin(z_stream *stream, int level) {
    return deflateInit2(stream, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
}
