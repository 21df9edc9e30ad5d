// SPDX-License-Identifier: Apache-2.0

import RPCCore
import Testing

@Suite struct MessageDeframerTests {
    /// Feeds bytes in chunks as a runner would and collects whole messages with their flags.
    private func messages(
        _ stream: [UInt8],
        chunks: [Int],
        deframer: inout MessageDeframer
    ) throws -> [(isCompressed: Bool, bytes: [UInt8])] {
        var whole: [(isCompressed: Bool, bytes: [UInt8])] = []
        var current: (isCompressed: Bool, bytes: [UInt8]) = (false, [])
        var start = 0
        for size in chunks {
            let chunk = Array(stream[start..<min(start + size, stream.count)])
            start += chunk.count
            var position = 0
            while true {
                let step = try chunk.withUnsafeBytes {
                    try deframer.next(UnsafeRawBufferPointer(rebasing: $0[position...]))
                }
                let consumed = chunk[position..<position + step.consumed]
                position += step.consumed
                switch step.event {
                case .needsBytes:
                    #expect(position == chunk.count)
                case .began(let prefix):
                    current = (prefix.isCompressed, [])
                case .body(let isLast):
                    current.bytes += consumed
                    if isLast {
                        whole.append(current)
                    }
                }
                if step.event == .needsBytes {
                    break
                }
            }
        }
        return whole
    }

    private let contents: [[UInt8]] = [[1, 2, 3], [], Array(repeating: 9, count: 300), [7]]

    private var stream: [UInt8] {
        self.contents.enumerated()
            .flatMap {
                MessagePrefix(length: $0.element.count, isCompressed: $0.offset == 3).bytes + $0.element
            }
    }

    @Test func `a stream cut anywhere gives the same messages`() throws {
        for cut in 0...self.stream.count {
            var deframer = MessageDeframer(maxMessageBytes: 300)
            let whole = try self.messages(
                self.stream,
                chunks: [cut, self.stream.count - cut],
                deframer: &deframer
            )
            #expect(whole.map(\.bytes) == self.contents)
            #expect(whole.map(\.isCompressed) == [false, false, false, true])
            #expect(deframer.isBetweenMessages)
            try deframer.end()
        }
    }

    @Test(arguments: [1, 2, 3, 4, 5, 6, 7])
    func `a stream in small chunks gives the same messages`(size: Int) throws {
        var deframer = MessageDeframer(maxMessageBytes: 300)
        let chunks = Array(repeating: size, count: self.stream.count / size + 1)
        #expect(try self.messages(self.stream, chunks: chunks, deframer: &deframer).map(\.bytes) == self.contents)
    }

    @Test func `the limit is checked before the body and the error stays`() throws {
        var deframer = MessageDeframer(maxMessageBytes: 4)
        let prefix = MessagePrefix(length: 5).bytes
        #expect { try prefix.withUnsafeBytes { try deframer.next($0) } } throws: {
            ($0 as? RPCError)?.code == .resourceExhausted && "\($0)".contains("5") && "\($0)".contains("limit of 4")
        }
        #expect(throws: RPCError.self) { try [0].withUnsafeBytes { try deframer.next($0) } }
        #expect(throws: RPCError.self) { try deframer.end() }
        #expect(!deframer.isBetweenMessages)
    }

    @Test func `a length of four gigabytes is refused and not allocated`() {
        var deframer = MessageDeframer(maxMessageBytes: 4 << 20)
        #expect(throws: RPCError.self) {
            try ([0, 255, 255, 255, 255] as [UInt8]).withUnsafeBytes { try deframer.next($0) }
        }
    }

    @Test func `a flag other than 0 and 1 is refused`() {
        var deframer = MessageDeframer(maxMessageBytes: 4)
        #expect { try ([2, 0, 0, 0, 1] as [UInt8]).withUnsafeBytes { try deframer.next($0) } } throws: {
            ($0 as? RPCError)?.code == .internal
        }
    }

    @Test(arguments: 1..<8)
    func `a stream that ends inside a message is an error`(count: Int) throws {
        var deframer = MessageDeframer(maxMessageBytes: 300)
        let whole = try self.messages(Array(self.stream.prefix(count)), chunks: [count], deframer: &deframer)
        #expect(whole.isEmpty)
        #expect { try deframer.end() } throws: { ($0 as? RPCError)?.code == .internal }
    }
}
