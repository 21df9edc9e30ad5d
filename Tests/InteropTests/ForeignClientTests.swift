// SPDX-License-Identifier: Apache-2.0

import Foundation
import InteropCases
import PeerTools
import Testing

private let hasCpp = Peers.mayRun("cpp_interop")
private let cppHint: Comment = "make test builds the C++ clients where grpc_cpp_plugin and g++ are installed"

@Suite("Clients that are not python's", .serialized, .timeLimit(.minutes(10)))
struct ForeignClientTests {
    @Test("gRPC's C++ library against this project's server", .enabled(if: hasCpp, cppHint))
    func cpp() async throws {
        try await withInteropServer { port in
            let output = try await PeerProcess.run(try Peers.path("cpp_interop"), ["127.0.0.1:\(port)"])
            expectPasses(try PeerProcess.object(of: output, from: "cpp_interop"), atLeast: 12)
        }
    }
}

/// Requests that curl sends, which knows HTTP/2 and nothing of gRPC.
@Suite("curl", .serialized, .timeLimit(.minutes(10)), .enabled(if: Peers.mayRun("curl"), "needs curl"))
struct CurlTests {
    private static let grpc = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    /// Without a body: an answer that does not wait for one is followed by a reset with `NO_ERROR`, and curl 7.88 forgets
    /// the answer when that comes while it sends.
    private static let post = ["--request", "POST"]
    private static let emptyCall = "grpc.testing.TestService/EmptyCall"

    /// What came back: the status and fields of the head, the trailers after an empty line, and the body.
    private struct Answer {
        var head: [String]
        var trailers: [String]
        var body: Data
    }

    private func ask(_ path: String, _ arguments: [String], body: [UInt8]? = nil) async throws -> Answer {
        try await withInteropServer { port in
            let folder = FileManager.default.temporaryDirectory.appendingPathComponent("curl-\(UUID().uuidString)")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            defer { try? FileManager.default.removeItem(at: folder) }
            let sent = folder.appendingPathComponent("sent")
            let received = folder.appendingPathComponent("received")
            try Data(body ?? []).write(to: sent)
            let output = try await PeerProcess.run(
                try Peers.path("curl"),
                ["--silent", "--show-error", "--http2-prior-knowledge", "--max-time", "30", "--dump-header", "-"]
                    + ["--output", received.path] + (body == nil ? [] : ["--data-binary", "@\(sent.path)"]) + arguments
                    + ["http://127.0.0.1:\(port)/\(path)"]
            )
            #expect(output.status == 0, "\(output.errors)")
            let blocks = output.text.replacing("\r\n", with: "\n").split(separator: "\n\n")
                .map { $0.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) } }
            return Answer(
                head: blocks.first ?? [],
                trailers: blocks.count > 1 ? blocks[1] : [],
                body: (try? Data(contentsOf: received)) ?? Data()
            )
        }
    }

    @Test("a framed message gets a framed message, and the status in trailers")
    func call() async throws {
        let answer = try await self.ask(Self.emptyCall, Self.grpc, body: [0, 0, 0, 0, 0])
        #expect(answer.head == ["HTTP/2 200", "content-type: application/grpc"])
        #expect(answer.trailers == ["grpc-status: 0"])
        #expect(answer.body == Data([0, 0, 0, 0, 0]))
    }

    @Test("another content type is 415, without a gRPC status")
    func contentType() async throws {
        let answer = try await self.ask(Self.emptyCall, Self.post + ["-H", "content-type: application/json"])
        #expect(answer.head.first == "HTTP/2 415")
        #expect(!(answer.head + answer.trailers).contains { $0.hasPrefix("grpc-status") })
        #expect(answer.body.isEmpty)
    }

    @Test("a missing method is UNIMPLEMENTED, all in one block")
    func unknownMethod() async throws {
        let answer = try await self.ask("no.Such/Method", Self.post + Self.grpc)
        #expect(answer.head.first == "HTTP/2 200")
        #expect(answer.head.contains("grpc-status: 12"))
        #expect(answer.trailers.isEmpty)
    }

    @Test(
        "no message is UNIMPLEMENTED, and half a message is INTERNAL",
        arguments: [([], "12"), ([0, 0, 0, 0, 9, 1], "13")]
    )
    func broken(body: [UInt8], status: String) async throws {
        let answer = try await self.ask(Self.emptyCall, Self.grpc, body: body)
        #expect(answer.head.first == "HTTP/2 200")
        #expect((answer.head + answer.trailers).contains("grpc-status: \(status)"), "\(answer)")
    }

    @Test("GET and HEAD are 405 and say what is allowed", arguments: [[], ["--head"]])
    func otherMethods(arguments: [String]) async throws {
        let answer = try await self.ask(Self.emptyCall, arguments)
        #expect(answer.head == ["HTTP/2 405", "allow: POST"])
        #expect(answer.body.isEmpty || answer.body.starts(with: Data("HTTP".utf8)))
    }

    @Test("a client that speaks HTTP/1 is told in a sentence what the port speaks")
    func oldHTTP() async throws {
        try await withInteropServer { port in
            let output = try await PeerProcess.run(
                try Peers.path("curl"),
                ["--silent", "--show-error", "--include", "--http1.1", "--max-time", "30", "http://127.0.0.1:\(port)/"]
            )
            #expect(output.status == 0, "\(output.errors)")
            #expect(output.text.hasPrefix("HTTP/1.1 505 HTTP Version Not Supported"), "\(output.text)")
            #expect(output.text.contains("This port speaks gRPC over HTTP/2"), "\(output.text)")
        }
    }
}
