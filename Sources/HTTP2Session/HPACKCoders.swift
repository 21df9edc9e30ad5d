// SPDX-License-Identifier: Apache-2.0

internal import CNGHTTP2

/// The encoder of a connection's header blocks, around libnghttp2's.
///
/// A block that left the compression table as it was can be sent again as the same bytes until the table changes: ``generation``
/// counts the changes.
final class HPACKEncoder {
    /// The largest block that is sent, in bytes.
    static let blockLimit = 1 << 20

    private let deflater: OpaquePointer
    /// Grows with each block that may have changed the table.
    private(set) var generation = 0

    init() throws(HTTP2CodecError) {
        var deflater: OpaquePointer?
        guard nghttp2_hd_deflate_new(&deflater, 4_096) == 0, let deflater else { throw HTTP2Codec.outOfMemory }
        self.deflater = deflater
    }

    deinit { nghttp2_hd_deflate_del(self.deflater) }

    /// The peer allows another size of the table; the next block says so to its decoder.
    func changeTableSize(_ size: Int) -> Bool {
        self.generation += 1
        return nghttp2_hd_deflate_change_table_size(self.deflater, size) == 0
    }

    /// Encodes a block.
    ///
    /// - Parameters:
    ///   - fields: The fields, which were validated.
    ///   - bytes: What the block is appended to.
    /// - Returns: False if the block is over the limit or the library has no memory; nothing is appended then.
    func encode(_ fields: UnsafeBufferPointer<nghttp2_nv>, into bytes: inout [UInt8]) -> Bool {
        guard let base = fields.baseAddress else { return true }
        let bound = nghttp2_hd_deflate_bound(self.deflater, base, fields.count)
        guard bound <= Self.blockLimit else { return false }
        let start = bytes.count
        bytes.append(contentsOf: repeatElement(0, count: bound))
        let count = bytes.withUnsafeMutableBufferPointer { buffer -> Int in
            guard let room = buffer.baseAddress else { return -1 }
            return nghttp2_hd_deflate_hd(self.deflater, room + start, bound, base, fields.count)
        }
        bytes.removeLast(bound - max(0, count))
        guard count >= 0 else { return false }
        let keepsTable = bytes.withUnsafeBytes {
            HPACKText.shape(of: UnsafeRawBufferPointer(rebasing: $0[start...]))?.keepsTable ?? false
        }
        if !keepsTable { self.generation += 1 }
        return true
    }
}

/// The decoder of a connection's header blocks, around libnghttp2's.
final class HPACKDecoder {
    private let inflater: OpaquePointer

    init() throws(HTTP2CodecError) {
        var inflater: OpaquePointer?
        guard nghttp2_hd_inflate_new(&inflater) == 0, let inflater else { throw HTTP2Codec.outOfMemory }
        self.inflater = inflater
    }

    deinit { nghttp2_hd_inflate_del(self.inflater) }

    /// Decodes a piece of a block.
    ///
    /// - Parameters:
    ///   - bytes: The piece, which may end anywhere.
    ///   - isLast: Whether the block ends with it.
    ///   - body: Gets the name and the value of each field; returns whether to go on.
    /// - Returns: False if the compression state is broken, or the body wanted no more.
    func decode(
        _ bytes: UnsafeRawBufferPointer,
        isLast: Bool,
        _ body: (UnsafeBufferPointer<UInt8>, UnsafeBufferPointer<UInt8>) -> Bool
    ) -> Bool {
        var start = bytes.bindMemory(to: UInt8.self).baseAddress
        var missing = bytes.count
        // The library reads no byte of an empty piece, but takes no null for its place.
        var nothing: UInt8 = 0
        return withUnsafePointer(to: &nothing) { placeholder in
            while true {
                var field = nghttp2_nv()
                var flags: Int32 = 0
                let count =
                    nghttp2_hd_inflate_hd2(self.inflater, &field, &flags, start ?? placeholder, missing, isLast ? 1 : 0)
                guard count >= 0 else { return false }
                start = start.map { $0 + count }
                missing -= count
                if flags & Int32(NGHTTP2_HD_INFLATE_EMIT.rawValue) != 0 {
                    let name = UnsafeBufferPointer(start: UnsafePointer(field.name), count: field.namelen)
                    let value = UnsafeBufferPointer(start: UnsafePointer(field.value), count: field.valuelen)
                    guard body(name, value) else { return false }
                }
                if flags & Int32(NGHTTP2_HD_INFLATE_FINAL.rawValue) != 0 {
                    return nghttp2_hd_inflate_end_headers(self.inflater) == 0
                }
                if flags & Int32(NGHTTP2_HD_INFLATE_EMIT.rawValue) == 0, missing == 0 { return true }
            }
        }
    }
}
