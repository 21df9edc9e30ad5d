// SPDX-License-Identifier: Apache-2.0

internal import CNGHTTP2

/// A header block that one codec keeps to send many times: checked once, and never copied into strings again.
///
/// Made by ``HTTP2Codec/store(_:)``, and valid for that codec only.
public struct HTTP2StoredBlock: Sendable, Hashable {
    let index: Int
}

/// The memory of a stored block, which is lent to the encoder.
final class StoredFields {
    let vectors: [nghttp2_nv]
    /// The block as it was sent last, and the table's generation that it fits.
    var encoded: [UInt8] = []
    var generation = -1
    private let bytes: UnsafeMutablePointer<UInt8>

    init(_ fields: [HTTP2HeaderField]) {
        let count = fields.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count }
        let bytes = UnsafeMutablePointer<UInt8>.allocate(capacity: max(1, count))
        var end = bytes
        func put(_ text: String) -> (UnsafeMutablePointer<UInt8>, Int) {
            let start = end
            for byte in text.utf8 {
                end.initialize(to: byte)
                end += 1
            }
            return (start, end - start)
        }
        self.vectors = fields.map { field in
            let (name, nameCount) = put(field.name)
            let (value, valueCount) = put(field.value)
            let indexing = field.isNeverIndexed ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE
            let lent = NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue | NGHTTP2_NV_FLAG_NO_COPY_VALUE.rawValue
            return nghttp2_nv(
                name: name,
                value: value,
                namelen: nameCount,
                valuelen: valueCount,
                flags: UInt8(indexing.rawValue | lent)
            )
        }
        self.bytes = bytes
    }

    deinit { self.bytes.deallocate() }
}

extension HTTP2Codec {
    /// How many blocks a codec keeps.
    private static let storedBlockLimit = 256

    /// Keeps a header block that will be sent many times.
    ///
    /// - Parameter fields: The fields, pseudo-header fields first.
    /// - Returns: The block, or nil when the codec keeps 256 blocks already; send the fields themselves then.
    /// - Throws: ``HTTP2CodecError`` when a field is invalid.
    public func store(_ fields: [HTTP2HeaderField]) throws(HTTP2CodecError) -> HTTP2StoredBlock? {
        try HTTP2Codec.validate(fields)
        guard self.storedBlocks.count < HTTP2Codec.storedBlockLimit else { return nil }
        self.storedBlocks.append(StoredFields(fields))
        return HTTP2StoredBlock(index: self.storedBlocks.count - 1)
    }

    /// Opens a stream with a stored request (client only).
    ///
    /// - Parameters:
    ///   - block: The request's fields.
    ///   - variable: One more field after them.
    ///   - endStream: Whether the request has no body.
    /// - Returns: The new stream's identifier.
    /// - Throws: ``HTTP2CodecError`` when the field is invalid or the connection takes no new streams.
    public func submitRequest(
        _ block: HTTP2StoredBlock,
        variable: HTTP2HeaderField?,
        endStream: Bool
    ) throws(HTTP2CodecError) -> Int32 {
        if let variable { try HTTP2Codec.validate(variable) }
        return try self.openStream(.stored(block, variable: variable), endStream: endStream)
    }

    /// Answers a request with a stored header block (server only).
    ///
    /// - Parameters:
    ///   - streamID: The request's stream. Ignored if the stream has closed in the meantime.
    ///   - block: The response's fields.
    ///   - endStream: Whether nothing follows.
    /// - Throws: ``HTTP2CodecError`` when the response was begun before.
    public func submitResponse(
        streamID: Int32,
        _ block: HTTP2StoredBlock,
        endStream: Bool
    ) throws(HTTP2CodecError) {
        guard let stream = try self.streamForResponse(streamID) else { return }
        self.answer(stream, .stored(block, variable: nil), endStream: endStream)
    }

    /// Ends a body with stored trailers.
    ///
    /// - Parameters:
    ///   - streamID: The stream, whose header block was submitted. A closed stream ignores the command.
    ///   - block: The trailer fields.
    /// - Throws: ``HTTP2CodecError`` when the header block is missing or the body has already ended.
    public func submitTrailers(streamID: Int32, _ block: HTTP2StoredBlock) throws(HTTP2CodecError) {
        guard let stream = try self.streamForBody(streamID) else { return }
        stream.bodyEnd = .storedTrailers(block)
        self.queue(stream)
    }
}
