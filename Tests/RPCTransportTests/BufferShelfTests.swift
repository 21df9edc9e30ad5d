// SPDX-License-Identifier: Apache-2.0

import NIOCore
import Testing

@testable import RPCTransport

@Suite("Buffers that are filled again")
struct BufferShelfTests {
    private func address(_ buffer: ByteBuffer) -> UInt {
        buffer.withVeryUnsafeBytes { UInt(bitPattern: $0.baseAddress) }
    }

    /// Fills a buffer of the shelf, keeps it there, and hands it over.
    private func filled(_ shelf: inout BufferShelf, _ bytes: [UInt8]) -> ByteBuffer {
        var buffer = shelf.take(capacity: bytes.count)
        buffer.writeBytes(bytes)
        shelf.keep(buffer)
        return buffer
    }

    @Test("a buffer that is in use, whole or in part, is not written over")
    func inUse() {
        var shelf = BufferShelf(count: 2, limitBytes: 1_024)
        var kept: [ByteBuffer] = []
        for number in 0..<20 {
            let buffer = self.filled(&shelf, Array(repeating: UInt8(number), count: 100))
            kept.append(number % 2 == 0 ? buffer : buffer.getSlice(at: 10, length: 50) ?? ByteBuffer())
        }
        for (number, buffer) in kept.enumerated() {
            #expect(
                Array(buffer.readableBytesView) == Array(repeating: UInt8(number), count: number % 2 == 0 ? 100 : 50)
            )
        }
    }

    @Test("a buffer that was let go of is used again, whatever was in it")
    func again() {
        var shelf = BufferShelf(limitBytes: 1_024)
        let first = self.address(self.filled(&shelf, Array(repeating: 1, count: 200)))
        let second = self.filled(&shelf, [2, 3])
        #expect(self.address(second) == first)
        #expect(Array(second.readableBytesView) == [2, 3])
    }

    @Test("a buffer over the limit is made for its user alone")
    func large() {
        var shelf = BufferShelf(limitBytes: 64)
        _ = self.filled(&shelf, Array(repeating: 1, count: 1_000))
        #expect(shelf.take(capacity: 10).capacity <= 64)
    }
}
