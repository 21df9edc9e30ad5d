// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization

/// The hub's paths and redirects over some files: small ones are served here, large ones lie on another server.
final class TestHub: Sendable {
    static let commit = String(repeating: "c0ffee12", count: 5)
    static let token = "hf_0123456789"

    struct File: Sendable {
        var content: ServedFile
        var isLarge: Bool
        /// What the list of files says instead of the right checksum.
        var claimedChecksum: String?
    }

    struct State: Sendable {
        var files: [String: File] = [:]
        /// Answers that go before the right ones, by path and in order.
        var instead: [String: [WebServer.Reply]] = [:]
        /// Bytes after which the n-th answer for a large file is cut.
        var cuts: [Int] = []
        var needsToken = false
        var storage = ""
    }

    let state: Mutex<State>
    let model: String

    init(_ model: String, files: [String: File]) {
        self.model = model
        self.state = Mutex(State(files: files))
    }

    /// The answer of the hub itself.
    func reply(to request: WebServer.Request) -> WebServer.Reply {
        self.state.withLock { state in
            if state.instead[request.path]?.isEmpty == false, let reply = state.instead[request.path]?.removeFirst() {
                return reply
            }
            if state.needsToken, request.headers["authorization"] != "Bearer \(Self.token)" {
                return WebServer.Reply(status: 401, headers: ["x-error-code": "GatedRepo"])
            }
            if request.path == "/api/models/\(self.model)/revision/main" {
                return WebServer.Reply(body: Array(Self.listing(state.files).utf8))
            }
            let prefix = "/\(self.model)/resolve/\(Self.commit)/"
            guard request.path.hasPrefix(prefix),
                let file = state.files[String(request.path.dropFirst(prefix.count))]
            else {
                return WebServer.Reply(status: 404, headers: ["x-error-code": "RepoNotFound"])
            }
            guard file.isLarge else { return file.content.reply(to: request) }
            return WebServer.Reply(
                status: 302,
                headers: [
                    "location": "\(state.storage)/objects/\(file.content.sha256)?signature=secret",
                    "x-linked-etag": "\"\(file.content.sha256)\"", "x-linked-size": "\(file.content.bytes.count)",
                ]
            )
        }
    }

    /// The answer of the server with the large files.
    func storageReply(to request: WebServer.Request) -> WebServer.Reply {
        self.state.withLock { state in
            if state.instead["storage"]?.isEmpty == false, let reply = state.instead["storage"]?.removeFirst() {
                return reply
            }
            let digest = String(request.path.dropFirst("/objects/".count))
            guard let file = state.files.values.first(where: { $0.content.sha256 == digest }) else {
                return WebServer.Reply(status: 404)
            }
            var reply = file.content.reply(to: request)
            if !state.cuts.isEmpty { reply.cutAfter = state.cuts.removeFirst() }
            return reply
        }
    }

    private static func listing(_ files: [String: File]) -> String {
        let siblings = files.sorted { $0.key < $1.key }
            .map { name, file in
                let size = file.content.bytes.count
                let blob = file.claimedChecksum ?? file.content.gitBlob
                let sha = file.claimedChecksum ?? file.content.sha256
                let lfs = file.isLarge ? #","lfs":{"sha256":"\#(sha)","size":\#(size),"pointerSize":134}"# : ""
                return #"{"rfilename":"\#(name)","size":\#(size),"blobId":"\#(blob)"\#(lfs)}"#
            }
        return #"{"id":"x","sha":"\#(Self.commit)","siblings":[\#(siblings.joined(separator: ","))]}"#
    }

    /// Runs the hub and the server with its large files.
    static func with(
        _ hub: TestHub,
        certificate: (chain: String, key: String)? = nil,
        _ body: (_ hub: WebServer, _ storage: WebServer) async throws -> Void
    ) async throws {
        let storageHandler: WebServer.Handler = { hub.storageReply(to: $0) }
        let hubHandler: WebServer.Handler = { hub.reply(to: $0) }
        try await WebServer.with(certificate: certificate, handler: storageHandler) { storage in
            hub.state.withLock { $0.storage = storage.address }
            try await WebServer.with(certificate: certificate, handler: hubHandler) { server in
                try await body(server, storage)
            }
        }
    }
}
