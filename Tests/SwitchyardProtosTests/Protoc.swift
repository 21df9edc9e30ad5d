// SPDX-License-Identifier: Apache-2.0

import Foundation

/// Google's own implementation of protobuf, as an independent reader and writer.
enum Protoc {
    /// The top of the repository.
    static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// Where a program is, if it is installed.
    static func find(_ name: String) -> String? {
        ["/usr/bin", "/usr/local/bin"].map { "\($0)/\(name)" }
            .first {
                FileManager.default.isExecutableFile(atPath: $0)
            }
    }

    static let isInstalled = Self.find("protoc") != nil
    /// Whether everything that `deploy/generate-protos.sh` needs is there.
    static let isGeneratorInstalled =
        Self.isInstalled && Self.find("protoc-c") != nil
        && Self.succeeds("/usr/bin/python3", "-c", "import google.protobuf")

    private static func succeeds(_ program: String, _ arguments: String...) -> Bool {
        let process = Process()
        process.executableURL = URL(filePath: program)
        process.arguments = arguments
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }

    /// A message's bytes as text.
    static func decode(_ bytes: [UInt8], as type: String) throws -> String {
        String(decoding: try Self.run("--decode=\(type)", input: Data(bytes)), as: UTF8.self)
    }

    /// A message's text as bytes.
    static func encode(_ text: String, as type: String) throws -> [UInt8] {
        Array(try Self.run("--encode=\(type)", input: Data(text.utf8)))
    }

    /// Runs the tool with input and output in files, which no pipe's capacity can block.
    private static func run(_ option: String, input: Data) throws -> Data {
        let folder = FileManager.default.temporaryDirectory.appending(path: "protoc-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let source = folder.appending(path: "in")
        let sink = folder.appending(path: "out")
        try input.write(to: source)
        try Data().write(to: sink)
        let process = Process()
        process.executableURL = URL(filePath: Self.find("protoc") ?? "protoc")
        process.currentDirectoryURL = Self.root.appending(path: "Protos")
        process.arguments = [
            option, "switchyard/v1/gateway.proto", "switchyard/v1/expert_host.proto", "grpc/health/v1/health.proto",
            "grpc/reflection/v1/reflection.proto",
        ]
        process.standardInput = try FileHandle(forReadingFrom: source)
        process.standardOutput = try FileHandle(forWritingTo: sink)
        try process.run()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw ProtocFailure(option: option, status: process.terminationStatus)
        }
        return try Data(contentsOf: sink)
    }
}

/// The tool refused its input.
struct ProtocFailure: Error {
    var option: String
    var status: Int32
}
