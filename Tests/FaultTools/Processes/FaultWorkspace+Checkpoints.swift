// SPDX-License-Identifier: Apache-2.0

internal import Foundation

extension FaultWorkspace {
    /// A folder with two checkpoints of one shape that answer differently: `plain`, the model, and `tuned`.
    ///
    /// - Parameter pools: For how many pools they are cut.
    /// - Returns: The folder.
    /// - Throws: ``FaultError`` where the model cannot be changed or cut; errors of copying files.
    package func checkpoints(pools: Int) async throws -> String {
        let folder = "\(self.folder)/checkpoints-\(pools)"
        let tuned = "\(self.folder)/tuned-model"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try FileManager.default.copyItem(atPath: self.model, toPath: tuned)
        try Self.tune("\(tuned)/model.safetensors")
        for (model, name) in [(self.model, "plain"), (tuned, "tuned")] {
            try await Tool.run(self.executable, ["shard", model, "--out", "\(folder)/\(name)", "--pools", "\(pools)"])
        }
        return folder
    }

    /// Turns the signs of all experts' second matrices and of the self-attentions' outputs, so that what the hosts hold and
    /// what the gateway holds both give other answers.
    ///
    /// - Parameter path: A safetensors file in bfloat16.
    /// - Throws: ``FaultError`` where it is none.
    package static func tune(_ path: String) throws {
        var data = try Data(contentsOf: URL(fileURLWithPath: path))
        let length = data.prefix(8).enumerated().reduce(0) { $0 | Int($1.element) << (8 * $1.offset) }
        guard length < data.count - 8,
            let header = try JSONSerialization.jsonObject(with: data.subdata(in: 8..<8 + length)) as? [String: Any]
        else { throw FaultError("\(path) is no safetensors file") }
        var changed = 0
        for (name, value) in header {
            guard name.contains("expert_") && name.hasSuffix("wo.weight") || name.hasSuffix("SelfAttention.o.weight"),
                let tensor = value as? [String: Any], tensor["dtype"] as? String == "BF16",
                let range = tensor["data_offsets"] as? [Int], range.count == 2
            else { continue }
            changed += 1
            // The high byte of each little-endian bfloat16 has the sign.
            for index in stride(from: 8 + length + range[0] + 1, to: 8 + length + range[1], by: 2) {
                data[index] ^= 0x80
            }
        }
        guard changed > 0 else { throw FaultError("\(path) has no bfloat16 experts to change") }
        try data.write(to: URL(fileURLWithPath: path))
    }
}
