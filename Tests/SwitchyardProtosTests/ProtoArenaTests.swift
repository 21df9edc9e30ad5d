// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import SwitchyardProtos

@Suite struct ProtoArenaTests {
    @Test func `blocks are zeroed, aligned and apart`() {
        let arena = ProtoArena(limit: 1 << 20)
        var generator = SplitMix(seed: 6)
        var previous: [UnsafeMutableRawBufferPointer] = []
        for _ in 0..<500 {
            let size = Int.random(in: 0...600, using: &generator)
            let start = arena.allocate(size)
            #expect(start != nil)
            let block = UnsafeMutableRawBufferPointer(start: start, count: start == nil ? 0 : size)
            #expect(Int(bitPattern: block.baseAddress) % 16 == 0)
            #expect(block.allSatisfy { $0 == 0 })
            for index in block.indices {
                block[index] = 0xAA
            }
            previous.append(block)
        }
        #expect(arena.allocatedBytes <= 1 << 20)
        #expect(!arena.isExhausted)
    }

    @Test func `the limit refuses and is remembered`() {
        let arena = ProtoArena(limit: 100)
        #expect(arena.allocate(64) != nil)
        #expect(arena.allocate(64) == nil)
        #expect(arena.isExhausted)
        #expect(arena.allocatedBytes == 64)
        #expect(ProtoArena(limit: 100).allocate(Int.max) == nil)
        #expect(ProtoArena(limit: 100).allocate(-1) == nil)
    }

    @Test func `limits do not overflow`() {
        #expect(ProtoLimits(maxExpansion: .max).memory(forMessageBytes: 5) == .max)
        #expect(ProtoLimits(maxExpansion: 2, freeBytes: 3).memory(forMessageBytes: 5) == 13)
    }
}
