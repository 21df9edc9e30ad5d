// SPDX-License-Identifier: Apache-2.0

internal import CNGHTTP2

extension HTTP2Codec {
    /// Checks the names and values of fields that are to be sent.
    static func validate(_ fields: [HTTP2HeaderField]) throws(HTTP2CodecError) {
        for field in fields {
            try self.validate(field)
            // Their responses have rules of their own for bodies (RFC 9110, sections 9.3.2 and 9.3.6).
            guard field.name == ":method", field.value == "HEAD" || field.value == "CONNECT" else { continue }
            throw HTTP2CodecError(
                code: .invalidHeader,
                message: "requests with the method \(field.value) are not supported; use another method"
            )
        }
    }

    /// Checks the name and the value of a field that is to be sent.
    static func validate(_ field: HTTP2HeaderField) throws(HTTP2CodecError) {
        var name = field.name
        var value = field.value
        let nameIsValid = name.withUTF8 { bytes -> Bool in
            // A colon opens a pseudo-header field; the rest follows the rule for names.
            guard let base = bytes.baseAddress, bytes.count > 0 else { return false }
            let skip = bytes[0] == UInt8(ascii: ":") ? 1 : 0
            guard bytes.count > skip else { return false }
            for byte in bytes where byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z") { return false }
            return nghttp2_check_header_name(base + skip, bytes.count - skip) != 0
        }
        guard nameIsValid else {
            throw HTTP2CodecError(
                code: .invalidHeader,
                message: "\"\(field.name)\" is not a header field name; use lower-case letters, digits, - _ and ."
            )
        }
        let valueIsValid = value.withUTF8 { bytes -> Bool in
            guard let base = bytes.baseAddress, bytes.count > 0 else { return true }
            return nghttp2_check_header_value_rfc9113(base, bytes.count) != 0
        }
        guard valueIsValid else {
            throw HTTP2CodecError(
                code: .invalidHeader,
                message: "the value of \(field.name) has a control character, or a space at either end; "
                    + "encode or trim it"
            )
        }
    }

    /// Lends fields to the encoder, which copies what it keeps.
    ///
    /// They must have been validated.
    func withFieldVectors<Result>(
        _ fields: [HTTP2HeaderField],
        _ body: (UnsafeBufferPointer<nghttp2_nv>) -> Result
    ) -> Result {
        var bytes = self.fieldBytes
        var vectors = self.fieldVectors
        self.fieldBytes = []
        self.fieldVectors = []
        bytes.removeAll(keepingCapacity: true)
        vectors.removeAll(keepingCapacity: true)
        defer {
            self.fieldBytes = bytes
            self.fieldVectors = vectors
        }
        for field in fields {
            bytes.append(contentsOf: field.name.utf8)
            bytes.append(contentsOf: field.value.utf8)
        }
        return bytes.withUnsafeMutableBufferPointer { storage in
            var offset = 0
            for field in fields {
                let nameCount = field.name.utf8.count
                let valueCount = field.value.utf8.count
                vectors.append(
                    nghttp2_nv(
                        name: storage.baseAddress.map { $0 + offset },
                        value: storage.baseAddress.map { $0 + offset + nameCount },
                        namelen: nameCount,
                        valuelen: valueCount,
                        flags: UInt8(
                            field.isNeverIndexed ? NGHTTP2_NV_FLAG_NO_INDEX.rawValue : NGHTTP2_NV_FLAG_NONE.rawValue
                        )
                    )
                )
                offset += nameCount + valueCount
            }
            return vectors.withUnsafeBufferPointer { body($0) }
        }
    }
}
