// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// Where the scenarios find programs and models, and where they write.
package struct FaultWorkspace: Sendable {
    /// The `switchyard` program.
    package let executable: String
    /// The model that is served.
    package let model: String
    /// Shards, address files and logs; removed by ``discard()``.
    package let folder: String
    /// Arguments that every gateway gets, before its own; the later of two wins.
    package var gatewayArguments: [String] = []

    /// The repository's root, as long as the sources are where they were compiled.
    package static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .path

    /// The trained miniature.
    package static let miniature = "\(root)/deploy/models/switch-mini"

    /// Makes an empty folder.
    ///
    /// - Parameters:
    ///   - executable: The `switchyard` program; nil takes the one built next to this one.
    ///   - model: The model to serve.
    /// - Throws: ``FaultError`` where the program or the model is missing; errors of creating the folder.
    package init(executable: String? = nil, model: String = Self.miniature) throws {
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        let beside = URL(fileURLWithPath: own).deletingLastPathComponent().appendingPathComponent("switchyard").path
        self.executable = executable ?? beside
        self.model = model
        guard FileManager.default.isExecutableFile(atPath: self.executable) else {
            throw FaultError("\(self.executable) is not a program; build it with: swift build --product switchyard")
        }
        guard FileManager.default.fileExists(atPath: "\(model)/config.json") else {
            throw FaultError("\(model) holds no model; name a folder with config.json")
        }
        self.folder =
            FileManager.default.temporaryDirectory
            .appendingPathComponent("switchyard-faults-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: self.folder, withIntermediateDirectories: true)
    }

    /// Removes everything that was written.
    package func discard() { try? FileManager.default.removeItem(atPath: self.folder) }

    /// The model cut into pools; cut once and kept.
    ///
    /// - Parameter pools: How many pools.
    /// - Returns: The folder with `gateway` and the pools.
    /// - Throws: ``FaultError`` with what the program printed where it fails.
    package func shards(pools: Int) async throws -> String {
        try await self.cut(self.model, into: "\(self.folder)/shards-\(pools)", pools: pools)
    }

    /// The model cut into pools whose experts are packed, so that hosts map them.
    ///
    /// - Parameter pools: How many pools.
    /// - Returns: The folder with `gateway` and the pools.
    /// - Throws: ``FaultError`` with what the program printed where it fails.
    package func packedShards(pools: Int) async throws -> String {
        try await self.cut(self.model, into: "\(self.folder)/packed-shards-\(pools)", pools: pools, ["--packed"])
    }

    /// The model with one weight changed, cut into pools: the same shapes, another fingerprint.
    ///
    /// - Parameter pools: How many pools.
    /// - Returns: The folder with `gateway` and the pools.
    /// - Throws: ``FaultError`` with what the program printed where it fails; errors of copying files.
    package func otherShards(pools: Int) async throws -> String {
        let copy = "\(self.folder)/other-model"
        if !FileManager.default.fileExists(atPath: copy) {
            try FileManager.default.copyItem(atPath: self.model, toPath: copy)
            let weights = "\(copy)/model.safetensors"
            var bytes = try Data(contentsOf: URL(fileURLWithPath: weights))
            // The last byte of a file is the last weight's, whichever tensor that is.
            guard let last = bytes.popLast() else { throw FaultError("\(weights) is empty") }
            bytes.append(last ^ 0x01)
            try bytes.write(to: URL(fileURLWithPath: weights))
        }
        return try await self.cut(copy, into: "\(self.folder)/other-shards-\(pools)", pools: pools)
    }

    private func cut(
        _ model: String,
        into folder: String,
        pools: Int,
        _ arguments: [String] = []
    ) async throws -> String {
        if FileManager.default.fileExists(atPath: "\(folder)/placement.json") { return folder }
        try await Tool.run(self.executable, ["shard", model, "--out", folder, "--pools", "\(pools)"] + arguments)
        return folder
    }
}
