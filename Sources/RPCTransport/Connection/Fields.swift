// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import RPCCore

// The codec and the call machines are independent; their header fields are the same pair of strings.

extension HTTP2HeaderField {
    init(_ field: HeaderField) {
        // Timeouts never repeat exactly and would only push other fields out of the compression table.
        self.init(
            field.name,
            field.value,
            isNeverIndexed: field.name == "grpc-timeout" || field.name == "authorization"
        )
    }
}

extension [HeaderField] {
    var forCodec: [HTTP2HeaderField] { self.map { HTTP2HeaderField($0) } }
}

extension HTTP2HeaderBlock {
    /// The fields that recur.
    var callFields: [HeaderField] { self.fields.map { HeaderField($0.name, $0.value) } }
}

extension HTTP2ErrorCode {
    init(_ code: ResetCode) { self.init(rawValue: code.rawValue) }
}

extension ResetCode {
    init(_ code: HTTP2ErrorCode) { self.init(rawValue: code.rawValue) }
}
