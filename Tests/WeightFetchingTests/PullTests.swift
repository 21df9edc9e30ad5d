// SPDX-License-Identifier: Apache-2.0

import Foundation
import Subprocess
import Synchronization
import Testing

@testable import WeightFetching

/// A model of noise: enough of it that a connection can break in the middle.
private func noiseHub() -> TestHub {
    func small(_ text: String) -> TestHub.File {
        let content = ServedFile(bytes: Array(text.utf8))
        return TestHub.File(content: ServedFile(bytes: content.bytes, etag: "\"\(content.gitBlob)\""), isLarge: false)
    }
    let weights = ServedFile(bytes: noise(300_000, seed: 1), etag: "\"storage-1\"")
    return TestHub(
        "test/noise",
        files: [
            "config.json": small("{}"), "tokenizer_config.json": small("{\"a\": 1}"), "README.md": small("# Noise"),
            "model.safetensors": TestHub.File(content: weights, isLarge: true),
        ]
    )
}

private let listing = "/api/models/test/noise/revision/main"

extension TestHub {
    fileprivate var weights: ServedFile {
        self.state.withLock { $0.files["model.safetensors"]?.content } ?? ServedFile(bytes: [])
    }
}

@Suite("switchyard pull", .serialized)
struct PullTests {
    private func pull(
        _ place: Workplace,
        _ hub: WebServer,
        _ arguments: [String] = [],
        environment: [String: String] = [:]
    ) async throws -> (status: Int32, text: String, errors: String) {
        let output = try await place.switchyard(
            ["pull", "test/noise", "--endpoint", hub.address] + arguments,
            environment: environment
        )
        return (output.status, output.text, output.errors)
    }

    private func snapshot(_ place: Workplace) -> String {
        "\(place.hubCache)/models--test--noise/snapshots/\(TestHub.commit)"
    }

    @Test("the miniature arrives over TLS, in the hub's layout, and is cut from there")
    func miniature() async throws {
        var files: [String: TestHub.File] = [:]
        for name in ["config.json", "generation_config.json", "spiece.model", "model.safetensors", "README.md"] {
            let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: "\(Workplace.miniature)/\(name)")))
            files[name] = TestHub.File(
                content: ServedFile(bytes: bytes, etag: "\"\(name)\""),
                isLarge: bytes.count > 100_000
            )
        }
        let test = TestHub("test/switch-mini", files: files)
        test.state.withLock { $0.needsToken = true }
        try await Workplace.with { place in
            let certificate = try place.certificate()
            try await TestHub.with(test, certificate: (certificate.chain, certificate.key)) { hub, storage in
                let arguments = ["pull", "test/switch-mini", "--endpoint", hub.address]
                let untrusted = try await place.switchyard(arguments, environment: ["HF_TOKEN": TestHub.token])
                #expect(untrusted.status != 0)
                #expect(untrusted.errors.contains("--fetch-ca"), "\(untrusted.errors)")

                let trusting = arguments + ["--fetch-ca", certificate.authority]
                let unknown = try await place.switchyard(trusting)
                #expect(unknown.status != 0)
                #expect(unknown.errors.contains("HF_TOKEN"), "\(unknown.errors)")

                let pulled = try await place.switchyard(trusting, environment: ["HF_TOKEN": TestHub.token])
                #expect(pulled.status == 0, "\(pulled.errors)")
                #expect(pulled.text.contains("switchyard shard test/switch-mini"))
                // The token was shown to the hub, and never to the server that it redirects to.
                #expect(hub.requests.last?.headers["authorization"] == "Bearer \(TestHub.token)")
                #expect(!storage.requests.isEmpty)
                #expect(storage.requests.allSatisfy { $0.headers["authorization"] == nil })

                let model = "\(place.hubCache)/models--test--switch-mini"
                let reference = try String(contentsOfFile: "\(model)/refs/main", encoding: .utf8)
                #expect(reference == TestHub.commit)
                let link = try FileManager.default.destinationOfSymbolicLink(
                    atPath: "\(model)/snapshots/\(TestHub.commit)/config.json"
                )
                #expect(link == "../../blobs/\(files["config.json"]?.content.gitBlob ?? "")")
                let names = try FileManager.default.contentsOfDirectory(atPath: "\(model)/snapshots/\(TestHub.commit)")
                #expect(Set(names) == Set(files.keys).subtracting(["README.md"]))
            }
            let cut = try await place.switchyard([
                "shard", "test/switch-mini", "--out", "\(place.path)/shards", "--pools", "2",
            ])
            #expect(cut.status == 0, "\(cut.errors)")
        }
    }

    @Test("a second pull requests only the list; more files can be requested")
    func again() async throws {
        let test = noiseHub()
        try await Workplace.with { place in
            try await TestHub.with(test) { hub, storage in
                let first = try await pull(place, hub, ["--json"])
                #expect(first.status == 0, "\(first.errors)")
                let served = storage.served
                #expect(served == 300_000)
                let second = try await pull(place, hub, ["--json"])
                #expect(second.status == 0, "\(second.errors)")
                #expect(storage.served == served)
                let report = try JSONSerialization.jsonObject(with: Data(second.text.utf8)) as? [String: Any]
                #expect(report?["fetched_bytes"] as? Int == 0)
                #expect(report?["directory"] as? String == snapshot(place))
                let states = (report?["files"] as? [[String: Any]])?.compactMap { $0["state"] as? String }
                #expect(states == ["present", "present", "present"])
                let third = try await pull(place, hub, ["--include", "*.md", "--quiet"])
                #expect(third.status == 0, "\(third.errors)")
                #expect(third.text == snapshot(place) + "\n")
                #expect(third.errors.isEmpty)
                #expect(FileManager.default.fileExists(atPath: "\(snapshot(place))/README.md"))
            }
        }
    }

    @Test("what arrived before a connection was cut is not fetched again")
    func cut() async throws {
        let test = noiseHub()
        test.state.withLock { $0.cuts = [100_000, 50_000] }
        try await Workplace.with { place in
            try await TestHub.with(test) { hub, storage in
                let output = try await pull(place, hub)
                #expect(output.status == 0, "\(output.errors)")
                let starts = storage.requests.map { firstByte($0) ?? 0 }
                #expect(starts.count == 3)
                #expect(starts.first == 0)
                #expect(zip(starts, starts.dropFirst()).allSatisfy { $0 < $1 })
                #expect(storage.requests.dropFirst().allSatisfy { $0.headers["if-range"] == "\"storage-1\"" })
                let lost = storage.served - 300_000
                // What was in flight when a connection broke may be lost, and nothing else.
                #expect(starts.count == 3 && lost == (100_000 - starts[1]) + (starts[1] + 50_000 - starts[2]))
                let content = try Data(contentsOf: URL(fileURLWithPath: "\(snapshot(place))/model.safetensors"))
                #expect([UInt8](content) == test.weights.bytes)
            }
        }
    }

    @Test(
        "a killed process resumes where it stopped, unless the file has changed meanwhile",
        arguments: [false, true]
    )
    func killed(changes: Bool) async throws {
        let test = noiseHub()
        test.state.withLock { state in
            var reply = WebServer.Reply(body: state.files["model.safetensors"]?.content.bytes ?? [])
            reply.headers["etag"] = "\"storage-1\""
            reply.cutAfter = 120_100
            reply.hangs = true
            state.instead["storage"] = [reply]
        }
        try await Workplace.with { place in
            try await TestHub.with(test) { hub, storage in
                let blob = "\(place.hubCache)/models--test--noise/blobs/\(test.weights.sha256).incomplete"
                let killed = try await place.serve(
                    ["pull", "test/noise", "--endpoint", hub.address],
                    until: blob,
                    hasBytes: 100_001
                )
                #expect(killed.status == .exited(128 + 15), "\(killed.log)")
                #expect(killed.log.contains("run the same command again"))
                let kept = try #require(Files.byteCount(blob))
                #expect(kept > 100_000)
                #expect(!FileManager.default.fileExists(atPath: "\(place.hubCache)/models--test--noise/refs/main"))
                if changes { test.state.withLock { $0.files["model.safetensors"]?.content.etag = "\"storage-2\"" } }
                let output = try await pull(place, hub)
                #expect(output.status == 0, "\(output.errors)")
                #expect(storage.requests.last.flatMap { firstByte($0) } == kept)
                #expect(storage.served == 120_100 + (changes ? 300_000 : 300_000 - kept))
                let content = try Data(contentsOf: URL(fileURLWithPath: "\(snapshot(place))/model.safetensors"))
                #expect([UInt8](content) == test.weights.bytes)
            }
        }
    }

    @Test("ignored ranges cost the bytes again, and nothing else")
    func ignoredRanges() async throws {
        let test = noiseHub()
        test.state.withLock { state in
            state.files["model.safetensors"]?.content.ignoresRanges = true
            state.cuts = [100_000]
        }
        try await Workplace.with { place in
            try await TestHub.with(test) { hub, storage in
                let output = try await pull(place, hub)
                #expect(output.status == 0, "\(output.errors)")
                #expect(storage.served == 400_000)
                let content = try Data(contentsOf: URL(fileURLWithPath: "\(snapshot(place))/model.safetensors"))
                #expect([UInt8](content) == test.weights.bytes)
            }
        }
    }

    @Test("a busy server is retried when it says")
    func busy() async throws {
        let test = noiseHub()
        test.state.withLock { state in
            state.instead[listing] = [
                WebServer.Reply(status: 429, headers: ["retry-after": "0"]), WebServer.Reply(status: 500),
            ]
            state.instead["storage"] = [WebServer.Reply(status: 503, headers: ["retry-after": "0"])]
        }
        try await Workplace.with { place in
            try await TestHub.with(test) { hub, storage in
                let output = try await pull(place, hub)
                #expect(output.status == 0, "\(output.errors)")
                #expect(hub.requests(for: listing).count == 3)
                #expect(storage.requests.count == 2)
                #expect(output.errors.contains("the server answered 429"))
            }
        }
    }

    @Test(
        "a wrong checksum leaves nothing that could be taken for the model",
        arguments: ["model.safetensors", "config.json"]
    )
    func corrupt(name: String) async throws {
        let test = noiseHub()
        let wrong = String(repeating: "a", count: name == "config.json" ? 40 : 64)
        test.state.withLock { $0.files[name]?.claimedChecksum = wrong }
        try await Workplace.with { place in
            try await TestHub.with(test) { hub, _ in
                let output = try await pull(place, hub)
                #expect(output.status != 0)
                #expect(output.errors.contains("wrong checksum"), "\(output.errors)")
                let model = "\(place.hubCache)/models--test--noise"
                #expect(!FileManager.default.fileExists(atPath: "\(model)/refs/main"))
                let blobs = try FileManager.default.contentsOfDirectory(atPath: "\(model)/blobs")
                #expect(!blobs.contains { $0.hasPrefix(wrong) })
            }
        }
    }

    @Test("two pulls at once fetch every file once")
    func together() async throws {
        let test = noiseHub()
        try await Workplace.with { place in
            try await TestHub.with(test) { hub, storage in
                async let one = pull(place, hub)
                async let other = pull(place, hub)
                let (first, second) = (try await one, try await other)
                #expect(first.status == 0, "\(first.errors)")
                #expect(second.status == 0, "\(second.errors)")
                #expect(storage.served == 300_000)
            }
        }
    }

    @Test(
        "a failure says what to do next",
        arguments: [
            (404, "RepoNotFound", "google/switch-base-8 at main"),
            (404, "RevisionNotFound", "has no revision \"main\""),
            (401, "", "set HF_TOKEN"), (403, "GatedRepo", "accept its terms"), (418, "", "refused the request"),
        ]
    )
    func refusals(status: Int, code: String, part: String) async throws {
        let test = noiseHub()
        test.state.withLock {
            $0.instead[listing] = [
                WebServer.Reply(status: status, headers: code.isEmpty ? [:] : ["x-error-code": code])
            ]
        }
        try await Workplace.with { place in
            try await TestHub.with(test) { hub, _ in
                let output = try await pull(place, hub)
                #expect(output.status != 0)
                #expect(output.errors.contains(part), "\(output.errors)")
            }
        }
    }

    @Test("plaintext to another machine needs an explicit request, and a disk that is too small is noticed first")
    func limits() async throws {
        let test = noiseHub()
        try await Workplace.with { place in
            let plain = try await place.switchyard(["pull", "test/noise", "--endpoint", "http://hub.invalid"])
            #expect(plain.status != 0)
            #expect(plain.errors.contains("--plaintext"), "\(plain.errors)")
            // Larger than any disk: none of it is requested.
            let huge =
                #"{"sha":"\#(TestHub.commit)","siblings":[{"rfilename":"config.json","size":1,"blobId":"\#(TestHub.commit)"},"#
                + #"{"rfilename":"model.safetensors","size":35184372088832,"blobId":"\#(TestHub.commit)"}]}"#
            test.state.withLock { $0.instead[listing] = [WebServer.Reply(body: Array(huge.utf8))] }
            try await TestHub.with(test) { hub, _ in
                let output = try await pull(place, hub)
                #expect(output.status != 0)
                #expect(output.errors.contains("free; make room"), "\(output.errors)")
                #expect(hub.requests.count == 1)
            }
        }
    }
}
