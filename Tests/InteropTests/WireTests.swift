// SPDX-License-Identifier: Apache-2.0

import NIOCore
import RPCCore
import Testing

@testable import InteropCases

@Suite("Messages of the interop cases")
struct WireTests {
    @Test("a message comes back as it was, and unknown fields are skipped")
    func roundTrip() throws {
        var request = StreamingOutputCallRequest(sizes: [31_415, 0, -1], zeros: 300)
        request.responseParameters[0].intervalMicroseconds = 5_000_000
        request.responseParameters[2].compressed = BoolValue(false)
        request.responseStatus = EchoStatus(2, "\tnö")
        #expect(try StreamingOutputCallRequest(reading: request.serialized) == request)
        // Field 20 as a number, as four and eight bytes and as text.
        var bytes = ByteBuffer(bytes: [0xA0, 0x01, 7, 0xA5, 0x01, 1, 2, 3, 4, 0xA1, 0x01, 1, 2, 3, 4, 5, 6, 7, 8])
        bytes.writeBytes([0xA2, 0x01, 1, 0x61])
        bytes.writeImmutableBuffer(request.serialized)
        #expect(try StreamingOutputCallRequest(reading: bytes) == request)
    }

    @Test("messages written by protobuf's rules are read", arguments: [[0x10, 0x80, 0x01], [0x10, 0x80, 0x81, 0x00]])
    func numbers(bytes: [UInt8]) throws {
        #expect(try SimpleRequest(reading: ByteBuffer(bytes: bytes)).responseSize == 128)
    }

    @Test(
        "bytes that are not a message are INVALID_ARGUMENT",
        arguments: [
            [0x10], [0x10, 0x80], [0x1A, 0x05, 0x00],
            [0x1A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
            [0x13], [0x15, 1, 2, 3], [0x11, 1], [UInt8](repeating: 0xFF, count: 11),
        ]
    )
    func malformed(bytes: [UInt8]) {
        let error = #expect(throws: RPCError.self) { try SimpleRequest(reading: ByteBuffer(bytes: bytes)) }
        #expect(error?.code == .invalidArgument)
    }
}
