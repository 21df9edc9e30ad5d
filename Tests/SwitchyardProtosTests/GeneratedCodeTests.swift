// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardProtos
import Testing

private let generatorIsInstalled = ConditionTrait.enabled(
    if: Protoc.isGeneratorInstalled,
    "protoc, protoc-c or Python's protobuf module is missing; run deploy/install-packages.sh test"
)

@Suite struct GeneratedCodeTests {
    /// Calls a body with an empty folder.
    private func withFolder<R>(_ body: (URL) throws -> R) throws -> R {
        let folder = FileManager.default.temporaryDirectory.appending(path: "generated-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        return try body(folder)
    }

    /// Runs a program in a folder, and gives its status and what it wrote to standard error.
    private func run(_ program: String, _ arguments: [String], in folder: URL) throws -> (status: Int32, errors: String)
    {
        let errors = folder.appending(path: "errors")
        try Data().write(to: errors)
        let process = Process()
        process.executableURL = URL(filePath: program)
        process.arguments = arguments
        process.currentDirectoryURL = folder
        process.standardError = try FileHandle(forWritingTo: errors)
        try process.run()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: try Data(contentsOf: errors), as: UTF8.self))
    }

    /// The files of a folder that are code, by their path in it.
    private func code(in folder: URL) throws -> Set<String> {
        Set(
            try FileManager.default.subpathsOfDirectory(atPath: folder.path())
                .filter { path in [".c", ".h", ".swift"].contains { path.hasSuffix($0) } }
        )
    }

    @Test(generatorIsInstalled)
    func `the committed code is what the proto files generate`() throws {
        try self.withFolder { folder in
            let script = Protoc.root.appending(path: "deploy/generate-protos.sh").path()
            let result = try self.run("/bin/sh", [script, folder.path()], in: folder)
            #expect(result.status == 0, "\(result.errors)")

            let sources = Protoc.root.appending(path: "Sources")
            let files = try self.code(in: folder)
            #expect(files.filter { !$0.hasSuffix(".swift") }.count == 15)
            for file in files {
                let fresh = try Data(contentsOf: folder.appending(path: file))
                let old = try? Data(contentsOf: sources.appending(path: file))
                #expect(fresh == old, "\(file) is out of date; run deploy/generate-protos.sh and commit")
            }
            let messages = "SwitchyardProtos/Generated/"
            let committed = try self.code(in: sources.appending(path: messages)).map { messages + $0 }
            #expect(Set(committed) == files.filter { $0.hasSuffix(".swift") })
        }
    }

    /// Runs the generator of the typed messages over Protos/ with one file changed.
    private func generate(replacing old: String, with new: String, in file: String) throws -> String {
        try self.withFolder { folder in
            let protos = folder.appending(path: "Protos")
            try FileManager.default.copyItem(at: Protoc.root.appending(path: "Protos"), to: protos)
            let changed = protos.appending(path: file)
            let text = try String(contentsOf: changed, encoding: .utf8)
            try #require(text.contains(old))
            try text.replacing(old, with: new).write(to: changed, atomically: true, encoding: .utf8)
            let plugin = Protoc.root.appending(path: "deploy/protos/plugin.py").path()
            let files = [
                "switchyard/v1/types.proto", "switchyard/v1/expert_host.proto", "switchyard/v1/gateway.proto",
                "grpc/health/v1/health.proto", "grpc/reflection/v1/reflection.proto", "inference/open_inference.proto",
            ]
            let result = try self.run(
                Protoc.find("protoc") ?? "protoc",
                [
                    "--proto_path=\(protos.path())", "--plugin=protoc-gen-messages=\(plugin)",
                    "--messages_out=\(folder.path())",
                ] + files,
                in: folder
            )
            #expect(result.status != 0)
            return result.errors
        }
    }

    @Test(
        generatorIsInstalled,
        arguments: [
            ("uint32 rows = 2;", "Row rows = 2; message Row {}", "switchyard/v1/types.proto", "ExpertRows.Row"),
            (
                "  // How many rows belong to it.\n", "", "switchyard/v1/types.proto",
                "ExpertRows.rows: it has no comment"
            ),
            ("uint32 d_ff = 5;", "uint32 inner = 5;", "switchyard/v1/gateway.proto", "ModelDescription.d_ff: deploy"),
            (
                "string target_text = 3;", "bytes target_text = 3;", "switchyard/v1/gateway.proto",
                "cannot share ModelInput"
            ),
        ]
    )
    func `what the generator cannot write is refused by name`(
        change: (old: String, new: String, file: String, error: String)
    ) throws {
        let errors = try self.generate(replacing: change.old, with: change.new, in: change.file)
        #expect(errors.contains(change.error), "\(errors)")
    }

    @Test func `the descriptor set holds every file, imports first`() throws {
        let text = String(decoding: FileDescriptors.serializedSet, as: UTF8.self)
        let places = try [
            "switchyard/v1/types.proto", "switchyard/v1/expert_host.proto", "switchyard/v1/gateway.proto",
            "grpc/health/v1/health.proto", "grpc/reflection/v1/reflection.proto", "inference/open_inference.proto",
            "grpc/reflection/v1alpha/reflection.proto",
        ]
        .map { name in try #require(text.range(of: name)).lowerBound }
        #expect(places == places.sorted())
    }
}
