// SPDX-License-Identifier: Apache-2.0

internal import Foundation

extension TrainingTrial {
    /// Flips a bit of a weight in a host's memory.
    ///
    /// Where the weight is, a save says: right after one, the host holds the very bits that are in the file. It stays there as long
    /// as the process lives.
    ///
    /// - Parameters:
    ///   - host: The host.
    ///   - out: The run's folder.
    ///   - trainer: Its trainer.
    /// - Returns: Whether a bit was flipped; false where the run ended first.
    /// - Throws: ``FaultError`` where the memory cannot be read or written.
    func flip(_ host: Host, _ out: String, _ trainer: KeptProcess) async throws -> Bool {
        guard let process = host.process.identifier else { return false }
        if host.weight?.process != process { host.weight = nil }
        let link = "\(self.workspace.folder)/\(out)/latest"
        var last = try? FileManager.default.destinationOfSymbolicLink(atPath: link)
        var candidates: Set<UInt64> = []
        while host.weight == nil {
            guard trainer.exit == nil else { return false }
            try await Task.sleep(for: .milliseconds(1))
            guard let save = try? FileManager.default.destinationOfSymbolicLink(atPath: link), save != last else {
                continue
            }
            last = save
            // It must not take the next step meanwhile.
            try host.process.signal(SIGSTOP)
            defer { try? host.process.signal(SIGCONT) }
            let weight = try Self.weight(of: "\(link)/model.safetensors", pool: host.pool)
            let places = try ProcessMemory(process).places(of: weight.bytes)
            // Most copies of the state lie at other places of a cache line than the weights themselves; the others grow old.
            let own = Set(places.filter { $0 % 64 == UInt64(weight.offset % 64) })
            guard !own.isEmpty else { continue }
            let both = candidates.intersection(own)
            candidates = both.isEmpty ? own : both
            if candidates.count == 1 { host.weight = candidates.first.map { (process, $0) } }
        }
        guard let weight = host.weight else { return false }
        // A low bit of a mantissa: nothing but a comparison of bits sees it.
        try ProcessMemory(process).flip(weight.address, mask: 1 << 2)
        return true
    }

    /// Bytes of an expert that a pool trains, in the middle of its first matrix.
    private static func weight(of file: String, pool: Int) throws -> (bytes: Data, offset: Int) {
        let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: file))
        defer { try? handle.close() }
        let prefix = try handle.read(upToCount: 8) ?? Data()
        let length = prefix.reversed().reduce(0) { $0 << 8 | Int($1) }
        guard prefix.count == 8, (2...(64 << 20)).contains(length),
            let header = try handle.read(upToCount: length),
            let entries = try JSONSerialization.jsonObject(with: header) as? [String: Any]
        else { throw FaultError("\(file) has no header of safetensors") }
        let names = entries.keys.filter { $0.contains(".experts.expert_") && $0.hasSuffix(".wi.weight") }.sorted()
        // Experts are divided among pools in runs; a layer's last is the second pool's, its first the first one's.
        let experts = Set(
            names.compactMap { name in
                name.split(separator: ".").first { $0.hasPrefix("expert_") }.flatMap { Int($0.dropFirst(7)) }
            }
        )
        guard let expert = pool == 0 ? experts.min() : experts.max(),
            let name = names.first(where: { $0.contains(".expert_\(expert).") }),
            let entry = entries[name] as? [String: Any], entry["dtype"] as? String == "F32",
            let range = entry["data_offsets"] as? [Int], range.count == 2
        else { throw FaultError("\(file) has no experts in float32") }
        let offset = (range[1] - range[0]) / 2 / 64 * 64
        try handle.seek(toOffset: UInt64(8 + length + range[0] + offset))
        guard let bytes = try handle.read(upToCount: 256), bytes.count == 256 else {
            throw FaultError("\(name) of \(file) is too small")
        }
        return (bytes, offset)
    }
}
