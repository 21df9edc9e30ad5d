// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import Subprocess
import Synchronization
import Testing

@testable import WeightFetching

/// A folder of shards as a web server has it.
private final class ShardServer: Sendable {
    struct State: Sendable {
        var files: [String: ServedFile] = [:]
        var instead: [String: [WebServer.Reply]] = [:]
    }

    let state: Mutex<State>

    /// Serves the miniature, cut in two.
    init(_ place: Workplace) throws {
        let folder = "\(place.path)/shards"
        try CheckpointSharder.shard(model: Workplace.miniature, output: folder, pools: 2)
        var files: [String: ServedFile] = [:]
        for part in ["gateway", "pool-0"] {
            for name in try FileManager.default.contentsOfDirectory(atPath: "\(folder)/\(part)") {
                let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(part)/\(name)")))
                files["/\(part)/\(name)"] = ServedFile(bytes: bytes, etag: "\"\(name)\"")
            }
        }
        self.state = Mutex(State(files: files))
    }

    var handler: WebServer.Handler { { self.reply(to: $0) } }

    private func reply(to request: WebServer.Request) -> WebServer.Reply {
        self.state.withLock { state in
            if state.instead[request.path]?.isEmpty == false, let reply = state.instead[request.path]?.removeFirst() {
                return reply
            }
            return state.files[request.path]?.reply(to: request) ?? WebServer.Reply(status: 404)
        }
    }
}

private let weights = "/pool-0/model.safetensors"

/// The status that a page is answered with.
private func answer(to page: String) async throws -> Int {
    let address = try RemoteAddress(parsing: page)
    return try await WebClient.with(WebClientConfiguration()) { client in
        try await client.send(FileTransfer.Request(address: address, headers: [])).head.status
    }
}

@Suite("Shards from an address", .serialized)
struct RemoteShardTests {
    private func host(_ place: Workplace, _ address: String, until text: String) async throws -> (
        log: String, isInOrder: Bool
    ) {
        let (log, status) = try await place.serve(
            ["expert-host", "--shard", address, "--listen", "127.0.0.1:0", "--threads", "1", "--admin-listen", "off"],
            until: text
        )
        return (log, status.isSuccess)
    }

    @Test("a manifest lists every file of its part with size and checksum")
    func manifests() async throws {
        try await Workplace.with { place in
            let server = try ShardServer(place)
            for part in ["gateway", "pool-0"] {
                let manifest = try #require(try ShardManifest.load(directory: "\(place.path)/shards/\(part)"))
                let listed = Dictionary(uniqueKeysWithValues: try #require(manifest.files).map { ($0.name, $0) })
                let served = server.state.withLock { $0.files }.filter { $0.key.hasPrefix("/\(part)/") }
                #expect(listed.count == served.count - 1)
                for (path, file) in served where !path.hasSuffix("/manifest.json") {
                    let entry = try #require(listed[String(path.dropFirst(part.count + 2))])
                    #expect(entry.byteCount == file.bytes.count)
                    #expect(entry.sha256 == file.sha256)
                }
            }
        }
    }

    @Test(
        "a host fetches its shard once, resumes where a connection broke, and serves from the cache without its server"
    )
    func cache() async throws {
        try await Workplace.with { place in
            let shards = try ShardServer(place)
            let whole = try #require(shards.state.withLock { $0.files[weights] })
            var cut = whole.reply(to: .init(method: "GET", target: weights, headers: [:]))
            cut.cutAfter = 1_000_000
            shards.state.withLock { $0.instead[weights] = [cut] }
            let address = try await WebServer.with(handler: shards.handler) { server in
                let address = "\(server.address)/pool-0"
                let first = try await host(place, address + "?signature=secret", until: "serving experts")
                #expect(first.isInOrder, "\(first.log)")
                #expect(!first.log.contains("secret"))
                #expect(server.requests.allSatisfy { $0.target.hasSuffix("?signature=secret") })
                let again = try #require(server.requests(for: weights).last.flatMap { firstByte($0) })
                #expect(again > 0 && again <= 1_000_000)
                #expect(server.served(weights) == 1_000_000 + whole.bytes.count - again)

                // A signal that comes while the shard is loaded ends the host too.
                let second = try await host(place, address, until: "fetched weights")
                #expect(second.isInOrder, "\(second.log)")
                #expect(server.requests(for: weights).count == 2)
                #expect(server.requests(for: "/pool-0/manifest.json").count == 2)
                return address
            }
            // The server has stopped listening.
            let third = try await host(place, address, until: "serving experts")
            #expect(third.isInOrder, "\(third.log)")
            #expect(third.log.contains("complete in the cache"), "\(third.log)")
        }
    }

    @Test(
        "a part that was damaged in the cache is fetched again, the damaged file alone",
        arguments: ["model.safetensors", "config.json", "manifest.json"]
    )
    func damaged(name: String) async throws {
        try await Workplace.with { place in
            let shards = try ShardServer(place)
            try await WebServer.with(handler: shards.handler) { server in
                let address = "\(server.address)/pool-0"
                let first = try await host(place, address, until: "serving experts")
                #expect(first.isInOrder, "\(first.log)")
                let fetched = server.requests(for: weights).count
                let kept = try #require(
                    FileManager.default.enumerator(atPath: place.path)?
                        .compactMap { $0 as? String }
                        .first { $0.contains("/parts/") && $0.hasSuffix("/\(name)") }
                )
                let file = URL(fileURLWithPath: "\(place.path)/\(kept)")
                let whole = try Data(contentsOf: file)
                var bytes = whole
                bytes[bytes.count - 3] ^= 0x40
                try bytes.write(to: file)

                let second = try await host(place, address, until: "serving experts")
                #expect(second.isInOrder, "\(second.log)")
                // A changed bit of the manifest may leave it readable; nothing that it says is trusted unchecked.
                if name != "manifest.json" {
                    #expect(second.log.contains("damaged on this machine"), "\(second.log)")
                    #expect(second.log.contains(name))
                    #expect(try Data(contentsOf: file) == whole)
                }
                #expect(server.requests(for: weights).count == fetched + (name == "model.safetensors" ? 1 : 0))

                let third = try await host(place, address, until: "serving experts")
                #expect(third.isInOrder && !third.log.contains("damaged"), "\(third.log)")
            }
        }
    }

    @Test("a host that is fetching is alive but not ready, and SIGTERM ends it cleanly at once")
    func stopped() async throws {
        try await Workplace.with { place in
            let shards = try ShardServer(place)
            let whole = try #require(shards.state.withLock { $0.files[weights] })
            var stalled = whole.reply(to: .init(method: "GET", target: weights, headers: [:]))
            stalled.cutAfter = 2_000_000
            stalled.hangs = true
            shards.state.withLock { $0.instead[weights] = [stalled] }
            try await WebServer.with(handler: shards.handler) { server in
                let address = "\(server.address)/pool-0"
                let (log, status) = try await place.serve(
                    ["expert-host", "--shard", address, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"],
                    until: "Fetching pool-0",
                    then: { log in
                        let admin = try #require(log.firstMatch(of: /are served address=(\S+)/)).1
                        for (page, wanted) in [("livez", 200), ("readyz", 503)] {
                            let found = try await answer(to: "http://\(admin)/\(page)")
                            #expect(found == wanted, "\(page)")
                        }
                    }
                )
                #expect(status.isSuccess, "\(log)")
                #expect(log.contains("stopped before serving"), "\(log)")
                #expect(!log.contains("[expert-host] serving"))
            }
        }
    }

    @Test("a file that is not what the manifest says is never served")
    func corrupt() async throws {
        try await Workplace.with { place in
            let shards = try ShardServer(place)
            shards.state.withLock { $0.files[weights]?.bytes[5_000] ^= 1 }
            try await WebServer.with(handler: shards.handler) { server in
                let output = try await place.switchyard([
                    "expert-host", "--shard", "\(server.address)/pool-0", "--listen", "127.0.0.1:0",
                ])
                #expect(output.status == 1)
                #expect(output.errors.contains("wrong checksum"), "\(output.errors)")
                #expect(server.requests(for: weights).count == 2)
            }
        }
    }

    @Test("anything but a shard, and a shard of an earlier version, are named")
    func noShard() async throws {
        try await Workplace.with { place in
            let shards = try ShardServer(place)
            shards.state.withLock { state in
                state.files["/old/manifest.json"] = ServedFile(
                    bytes: Array(#"{"formatVersion":1,"name":"pool-0"}"#.utf8)
                )
                state.files["/page/manifest.json"] = ServedFile(bytes: Array("<html>".utf8))
            }
            try await WebServer.with(handler: shards.handler) { server in
                for (path, part) in [
                    ("old", "cut the checkpoint again"), ("page", "not a shard's manifest"), ("none", "not found"),
                ] {
                    let output = try await place.switchyard([
                        "expert-host", "--shard", "\(server.address)/\(path)", "--listen", "127.0.0.1:0",
                    ])
                    #expect(output.status != 0)
                    #expect(output.errors.contains(part), "\(output.errors)")
                }
            }
            let plain = try await place.switchyard(["expert-host", "--shard", "http://shards.invalid/pool-0"])
            #expect(plain.errors.contains("--plaintext"), "\(plain.errors)")
            let bucket = try await place.switchyard(["expert-host", "--shard", "s3://bucket/pool-0"])
            #expect(bucket.errors.contains("HTTPS address of its bucket"), "\(bucket.errors)")
        }
    }

    @Test("a gateway fetches its part too, over TLS with an authority that the environment names")
    func gateway() async throws {
        try await Workplace.with { place in
            let shards = try ShardServer(place)
            let certificate = try place.certificate()
            try await WebServer.with(certificate: (certificate.chain, certificate.key), handler: shards.handler) {
                server in
                // It has none of the pools that its part names, and so ends by itself once it has that.
                let arguments = [
                    "gateway", "--model", "\(server.address)/gateway", "--pool", "other=127.0.0.1:1", "--listen",
                    "127.0.0.1:0", "--threads", "1", "--admin-listen", "off",
                ]
                let untrusted = try await place.switchyard(arguments)
                #expect(untrusted.errors.contains("SSL_CERT_FILE"), "\(untrusted.errors)")
                #expect(server.requests.isEmpty)
                let output = try await place.switchyard(
                    arguments,
                    environment: ["SSL_CERT_FILE": certificate.authority]
                )
                #expect(output.errors.contains("part=gateway"), "\(output.errors)")
                #expect(output.status == 1)
                #expect(server.served("/gateway/model.safetensors") > 1_000_000)
            }
        }
    }
}
