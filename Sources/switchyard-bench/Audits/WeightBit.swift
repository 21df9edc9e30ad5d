// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchyardTypes

/// A weight of a packed shard, and one bit of its mantissa.
struct WeightBit: Sendable {
    let layer: SparseLayer
    let expert: Int
    /// Where the byte is in the shard's file.
    let offset: Int
    /// The bit in that byte.
    let mask: UInt8
}

/// The float32 weights of a packed shard's experts, where they lie in its file.
struct ShardWeights: Sendable {
    private struct Tensor: Sendable {
        let layer: SparseLayer
        let expert: Int
        let bytes: Range<Int>
    }

    private let tensors: [Tensor]

    /// Reads a shard's header.
    ///
    /// - Parameter path: Its `model.safetensors`, packed in float32.
    /// - Throws: ``BenchError`` if it is something else; errors of reading.
    init(_ path: String) throws {
        let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
        defer { try? handle.close() }
        let prefix = try handle.read(upToCount: 8) ?? Data()
        let length = prefix.reversed().reduce(0) { $0 << 8 | Int($1) }
        guard prefix.count == 8, (2...(64 << 20)).contains(length),
            let header = try handle.read(upToCount: length),
            let entries = try JSONSerialization.jsonObject(with: header) as? [String: Any]
        else { throw BenchError("\(path) has no header of safetensors; name a packed shard") }
        self.tensors = entries.sorted { $0.key < $1.key }
            .compactMap { name, value in
                guard let entry = value as? [String: Any], entry["dtype"] as? String == "F32",
                    let offsets = entry["data_offsets"] as? [Int], offsets.count == 2,
                    let (layer, expert) = Self.place(name)
                else { return nil }
                return Tensor(
                    layer: layer,
                    expert: expert,
                    bytes: (8 + length + offsets[0])..<(8 + length + offsets[1])
                )
            }
        guard !self.tensors.isEmpty else { throw BenchError("\(path) has no experts packed in float32") }
    }

    /// The layer and expert in a name such as `decoder.block.3.layer.2.mlp.experts.expert_5.wo.weight.packed`.
    private static func place(_ name: String) -> (SparseLayer, Int)? {
        let parts = name.split(separator: ".")
        guard parts.count > 3, let stack = Stack(name: parts[0]), let block = Int(parts[2]),
            let expert = parts.first(where: { $0.hasPrefix("expert_") }).flatMap({ Int($0.dropFirst(7)) })
        else { return nil }
        return (SparseLayer(stack: stack, block: block), expert)
    }

    /// Draws a bit of the mantissa of a random weight.
    ///
    /// - Parameter random: Where the choice comes from.
    /// - Returns: The bit.
    func draw(_ random: inout some RandomNumberGenerator) -> WeightBit {
        let tensor = self.tensors[Int.random(in: 0..<self.tensors.count, using: &random)]
        let weight = Int.random(in: 0..<tensor.bytes.count / 4, using: &random)
        // Of a little-endian float32, the lowest 23 bits.
        let bit = Int.random(in: 0..<23, using: &random)
        return WeightBit(
            layer: tensor.layer,
            expert: tensor.expert,
            offset: tensor.bytes.lowerBound + 4 * weight + bit / 8,
            mask: 1 << UInt8(bit % 8)
        )
    }
}

/// The memory of a process, as a fault in it changes it: only this process sees the change.
struct DamagedMemory: Sendable {
    private let process: Int32
    private let maps: [(address: UInt64, offset: UInt64, length: UInt64)]

    /// Finds where a process has mapped a file.
    ///
    /// - Parameters:
    ///   - process: Its id.
    ///   - file: The file's path.
    /// - Throws: ``BenchError`` if it has not.
    init(_ process: Int32, file: String) throws {
        let text = try String(contentsOfFile: "/proc/\(process)/maps", encoding: .utf8)
        let path = URL(fileURLWithPath: file).resolvingSymlinksInPath().path
        self.process = process
        self.maps = text.split(separator: "\n")
            .compactMap { line in
                let fields = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
                guard fields.count == 6, fields[5].drop(while: { $0 == " " }) == path else { return nil }
                let ends = fields[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
                guard ends.count == 2, let offset = UInt64(fields[2], radix: 16) else { return nil }
                return (ends[0], offset, ends[1] - ends[0])
            }
        guard !self.maps.isEmpty else { throw BenchError("process \(process) has not mapped \(path)") }
    }

    /// Flips a bit.
    ///
    /// - Parameter bit: Where it is in the file.
    /// - Throws: ``BenchError`` if the memory cannot be written.
    func flip(_ bit: WeightBit) throws {
        let offset = UInt64(bit.offset)
        guard let map = self.maps.first(where: { $0.offset <= offset && offset < $0.offset + $0.length }),
            let memory = FileHandle(forUpdatingAtPath: "/proc/\(self.process)/mem")
        else { throw BenchError("the memory of process \(self.process) cannot be opened; run this as the same user") }
        defer { try? memory.close() }
        let address = map.address + offset - map.offset
        try memory.seek(toOffset: address)
        guard let byte = try memory.read(upToCount: 1)?.first else {
            throw BenchError("the memory of process \(self.process) cannot be read at \(address)")
        }
        try memory.seek(toOffset: address)
        try memory.write(contentsOf: Data([byte ^ bit.mask]))
    }
}
