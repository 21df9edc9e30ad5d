// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// The kernel's queue of packets that wait for a verdict, as bytes
/// (https://github.com/torvalds/linux/blob/v6.1/include/uapi/linux/netfilter/nfnetlink_queue.h).
enum PacketQueueMessage {
    private static let subsystem: UInt16 = 3 << 8
    /// The kernel tells about a packet.
    private static let packet = Self.subsystem | 0
    private static let verdict: UInt16 = 1
    private static let config: UInt16 = 2
    private static let headerBytes = 20

    /// Asks for the packets of a queue: only their numbers, not their bytes.
    static func bind(queue: UInt16) -> [[UInt8]] {
        let command = Self.attribute(1, [1, 0, 0, 0])
        let parameters = Self.attribute(2, Self.big(UInt32(0)) + [1])
        let length = Self.attribute(3, Self.big(UInt32(20_000)))
        // Large segments come whole; they are not inspected.
        let wholeSegments = Self.attribute(5, Self.big(UInt32(4))) + Self.attribute(4, Self.big(UInt32(4)))
        return [
            Self.message(Self.config, queue, command),
            Self.message(Self.config, queue, parameters + length + wholeSegments),
        ]
    }

    /// Releases a packet.
    static func accept(_ packet: UInt32, queue: UInt16) -> [UInt8] {
        Self.message(Self.verdict, queue, Self.attribute(2, Self.big(UInt32(1)) + Self.big(packet)))
    }

    /// The numbers of the packets in some messages of the kernel.
    static func packets(in bytes: ArraySlice<UInt8>) -> [UInt32] {
        var packets: [UInt32] = []
        var rest = bytes
        while rest.count >= Self.headerBytes {
            let length = Int(Self.native32(rest.prefix(4)))
            guard length >= Self.headerBytes, length <= rest.count else { break }
            let message = rest.prefix(length)
            if Self.native16(message.dropFirst(4).prefix(2)) == Self.packet {
                packets += Self.packet(inAttributes: message.dropFirst(Self.headerBytes))
            }
            rest = rest.dropFirst(Self.aligned(length))
        }
        return packets
    }

    private static func packet(inAttributes bytes: ArraySlice<UInt8>) -> [UInt32] {
        var rest = bytes
        while rest.count >= 4 {
            let length = Int(Self.native16(rest.prefix(2)))
            guard length >= 4, length <= rest.count else { return [] }
            let kind = Self.native16(rest.dropFirst(2).prefix(2)) & 0x3FFF
            if kind == 1, length >= 8 {
                return [rest.dropFirst(4).prefix(4).reduce(0) { $0 << 8 | UInt32($1) }]
            }
            rest = rest.dropFirst(Self.aligned(length))
        }
        return []
    }

    // MARK: - Encoding

    private static func message(_ type: UInt16, _ queue: UInt16, _ body: [UInt8]) -> [UInt8] {
        let isRequest: UInt16 = 1
        let length = UInt32(Self.headerBytes + body.count)
        let head =
            Self.native(length) + Self.native(Self.subsystem | type) + Self.native(isRequest)
            + Self.native(UInt32(0)) + Self.native(UInt32(0))
        return head + [0, 0, UInt8(queue >> 8), UInt8(queue & 0xFF)] + body
    }

    private static func attribute(_ kind: UInt16, _ body: [UInt8]) -> [UInt8] {
        let padding = [UInt8](repeating: 0, count: Self.aligned(body.count) - body.count)
        return Self.native(UInt16(4 + body.count)) + Self.native(kind) + body + padding
    }

    private static func aligned(_ count: Int) -> Int { (count + 3) & ~3 }

    private static func native<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
        withUnsafeBytes(of: value) { Array($0) }
    }

    private static func big(_ value: UInt32) -> [UInt8] { Self.native(value.bigEndian) }

    private static func native16(_ bytes: ArraySlice<UInt8>) -> UInt16 {
        var value: UInt16 = 0
        withUnsafeMutableBytes(of: &value) { $0.copyBytes(from: bytes) }
        return value
    }

    private static func native32(_ bytes: ArraySlice<UInt8>) -> UInt32 {
        var value: UInt32 = 0
        withUnsafeMutableBytes(of: &value) { $0.copyBytes(from: bytes) }
        return value
    }
}
