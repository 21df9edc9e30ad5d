// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardProtos
import Testing

@Suite struct GeneratedCodeTests {
    @Test(
        .enabled(
            if: Protoc.isGeneratorInstalled,
            "protoc or protoc-c is missing; install protobuf-compiler and protobuf-c-compiler"
        )
    )
    func `the committed C code is what the proto files generate`() throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "generated-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        let process = Process()
        process.executableURL = URL(filePath: "/bin/sh")
        process.arguments = [Protoc.root.appending(path: "deploy/generate-protos.sh").path(), folder.path()]
        try process.run()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
        let committed = Protoc.root.appending(path: "Sources/CSwitchyardProtos")
        let files = try FileManager.default.subpathsOfDirectory(atPath: folder.path())
            .filter { $0.hasSuffix(".c") || $0.hasSuffix(".h") }
        #expect(files.count == 11)
        for file in files {
            let fresh = try Data(contentsOf: folder.appending(path: file))
            let old = try Data(contentsOf: committed.appending(path: file))
            #expect(fresh == old, "\(file) is out of date; run deploy/generate-protos.sh and commit")
        }
    }

    @Test func `the descriptor set holds every file, imports first`() throws {
        let text = String(decoding: FileDescriptors.serializedSet, as: UTF8.self)
        let places = try [
            "switchyard/v1/types.proto", "switchyard/v1/expert_host.proto", "switchyard/v1/gateway.proto",
            "grpc/health/v1/health.proto", "grpc/reflection/v1/reflection.proto",
            "grpc/reflection/v1alpha/reflection.proto",
        ]
        .map { name in try #require(text.range(of: name)).lowerBound }
        #expect(places == places.sorted())
    }
}
