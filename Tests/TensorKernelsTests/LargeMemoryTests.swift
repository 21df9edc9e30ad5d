// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import TensorKernels

@Suite("Large memory")
struct LargeMemoryTests {
    @Test(
        "is zeros at a multiple of 64 bytes, and can be written from end to end",
        arguments: [
            0, 1, 100, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, (6 << 20) + 12_345,
        ]
    )
    func zeros(byteCount: Int) {
        for _ in 0..<3 {
            let memory = LargeMemory(byteCount: byteCount)
            #expect(memory.byteCount == byteCount)
            #expect(Int(bitPattern: memory.start) % 64 == 0)
            let bytes = UnsafeMutableRawBufferPointer(start: memory.start, count: byteCount)
            #expect(bytes.allSatisfy { $0 == 0 })
            bytes.initializeMemory(as: UInt8.self, repeating: 0xFF)
            #expect(bytes.allSatisfy { $0 == 0xFF })
        }
    }
}
