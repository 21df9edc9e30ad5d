// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import WeightFetching

private let endpoint = "https://hub.test"

private func files(_ names: String...) -> [HubListing.File] {
    names.map { HubListing.File(path: $0, byteCount: 1, checksum: .sha256($0)) }
}

@Suite("Requests to the hub")
struct HubPlanTests {
    @Test(
        "the files that serving needs, safetensors before torch",
        arguments: [
            (["model.safetensors", "pytorch_model.bin", "tf_model.h5"], ["model.safetensors"]),
            (["pytorch_model.bin", "flax_model.msgpack"], ["pytorch_model.bin"]),
            (
                ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "pytorch_model.bin"],
                ["model-00001-of-00002.safetensors", "model.safetensors.index.json"]
            ),
            (
                ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin", "training_args.bin"],
                ["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"]
            ),
        ]
    )
    func selection(names: [String], wanted: [String]) throws {
        let all = (names + ["config.json", "spiece.model", "README.md"])
            .map { HubListing.File(path: $0, byteCount: 1, checksum: .sha256($0)) }
        let chosen = try HubSelection().chosen(from: all, of: "m")
        #expect(chosen.map(\.path).sorted() == (wanted + ["config.json", "spiece.model"]).sorted())
    }

    @Test("patterns add and remove files")
    func patterns() throws {
        let all = files("config.json", "model.safetensors", "spiece.model", "a/b.txt", "c.txt")
        let chosen = try HubSelection(include: ["*.txt"], exclude: ["c*t", "spiece*"]).chosen(from: all, of: "m")
        #expect(chosen.map(\.path) == ["a/b.txt", "config.json", "model.safetensors"])
        #expect(throws: FetchError.self) { try HubSelection(include: ["*.md"]).chosen(from: all, of: "m") }
        #expect(throws: FetchError.self) { try HubSelection(exclude: ["*"]).chosen(from: all, of: "m") }
        #expect(throws: FetchError.self) { try HubSelection().chosen(from: files("config.json"), of: "m") }
        #expect(throws: FetchError.self) { try HubSelection().chosen(from: files("model.safetensors"), of: "m") }
    }

    @Test(
        "stars match any characters",
        arguments: [
            ("abc", "abc", true), ("abc", "a*", true), ("abc", "*c", true), ("abc", "a*b*c*", true), ("abc", "*", true),
            ("abc", "ab", false), ("abc", "*b", false), ("", "*", true), ("aab", "*ab", true), ("a/b", "*b", true),
            (String(repeating: "a", count: 1000), String(repeating: "*a", count: 500) + "b", false),
        ]
    )
    func matching(text: String, pattern: String, matches: Bool) {
        #expect(HubSelection.matches(text, pattern) == matches)
    }

    @Test(
        "names and revisions",
        arguments: [
            ("google/switch-base-8", nil, "google/switch-base-8", "main"), ("gpt2", nil, "gpt2", "main"),
            ("a/b@v1", nil, "a/b", "v1"), ("a/b@refs/pr/5", nil, "a/b", "refs/pr/5"), ("a/b", "v2", "a/b", "v2"),
        ] as [(String, String?, String, String)]
    )
    func names(text: String, revision: String?, name: String, wanted: String) throws {
        let model = try HubModel(parsing: text, revision: revision)
        #expect(model.name == name)
        #expect(model.revision == wanted)
    }

    @Test(
        "an invalid name is refused",
        arguments: [
            "", "a/b/c", "/a", "a/", "../a", "a/..", "a b", "a@", "a@../x", "a@/x", "ä/b", "a@b@c", "a?b", ".a/b",
        ]
    )
    func badNames(text: String) {
        #expect(throws: FetchError.self) { try HubModel(parsing: text) }
    }

    @Test("a revision is one component of the hub's address")
    func addresses() throws {
        let model = try HubModel(parsing: "a/b@refs/pr/5")
        let hub = try RemoteAddress(parsing: "https://hub.test/mirror/")
        let listing = model.listing(at: hub).url.absoluteString
        #expect(listing == "https://hub.test/mirror/api/models/a/b/revision/refs%2Fpr%2F5?blobs=true")
        let file = model.file("x y/ü.bin", commit: "c", at: hub).url.absoluteString
        #expect(file == "https://hub.test/mirror/a/b/resolve/c/x%20y/%C3%BC.bin")
    }

    @Test(
        "a list of files that is malformed, or leads out of the model, is refused",
        arguments: [
            "", "[]", "{}", #"{"sha":"x","siblings":[]}"#,
            #"{"sha":"\#(TestHub.commit)","siblings":[{"rfilename":"../a","size":1,"blobId":"\#(TestHub.commit)"}]}"#,
            #"{"sha":"\#(TestHub.commit)","siblings":[{"rfilename":"/a","size":1,"blobId":"\#(TestHub.commit)"}]}"#,
            #"{"sha":"\#(TestHub.commit)","siblings":[{"rfilename":"a","size":-1,"blobId":"\#(TestHub.commit)"}]}"#,
            #"{"sha":"\#(TestHub.commit)","siblings":[{"rfilename":"a","size":1,"blobId":"../../x"}]}"#,
            #"{"sha":"\#(TestHub.commit)","siblings":[{"rfilename":"a","size":1}]}"#,
        ]
    )
    func badListing(text: String) throws {
        let address = try RemoteAddress(parsing: endpoint)
        #expect(throws: FetchError.self) { try HubListing(parsing: Array(text.utf8), from: address) }
    }

    @Test("secrets in addresses are not shown")
    func masking() throws {
        let address = try RemoteAddress(parsing: "https://user:pass@host.test:8443/a/b?sig=secret#x")
        #expect("\(address)" == "https://host.test:8443/a/b?***")
        #expect(address.authorization == "Basic " + Data("user:pass".utf8).base64EncodedString())
        #expect(address.appending("c d").url.absoluteString == "https://host.test:8443/a/b/c%20d?sig=secret")
        #expect(RemoteAddress.masked("https://user:pass@host/a?b") == "https://***@host/a?***")
        #expect(RemoteAddress.masked("shards/pool-0") == "shards/pool-0")
        let error = #expect(throws: FetchError.self) { try RemoteAddress(parsing: "s3://key:secret@bucket/x?sig=1") }
        #expect(error?.message.contains("secret") == false)
    }

    @Test("answers are read as strictly as JSON is defined, and no key counts by being first")
    func strictAnswers() throws {
        let address = try RemoteAddress(parsing: endpoint)
        let listing =
            #"{"sha":"\#(TestHub.commit)","siblings":[{"rfilename":"a","size":1,"blobId":"\#(TestHub.commit)"}]}"#
        let manifest = #"{"formatVersion":1,"name":"p","files":[{"name":"a","byteCount":1,"sha256":"\#(zeros)"}]}"#
        #expect(try HubListing(parsing: Array(listing.utf8), from: address).files.count == 1)
        #expect(try PartManifest(parsing: Array(manifest.utf8), from: address).files.count == 1)
        for text in [listing, manifest] {
            let wrong: [(String, String)] = [
                (text.replacing("]}", with: ",]}"), "trailing comma"), ("\u{FEFF}\(text)", "byte order mark"),
                (text.replacing("[{", with: #"[{"size":2,"size":2,"byteCount":2,"#), "twice"),
                (text + "x", "more text"), (text.replacing("]}", with: #"],"x":01}"#), "begins with 0"),
                (text.replacing("]}", with: #"],"x":"# + String(repeating: "[", count: 200)), "inside each other"),
            ]
            for (text, words) in wrong {
                let error = #expect(throws: FetchError.self) {
                    if text.contains("siblings") {
                        _ = try HubListing(parsing: Array(text.utf8), from: address)
                    } else {
                        _ = try PartManifest(parsing: Array(text.utf8), from: address)
                    }
                }
                #expect(error?.message.contains(words) == true, "\(error as Any)")
            }
        }
    }

    @Test("the environment of the hub's own tools")
    func environment() throws {
        let plain = try HubEnvironment(["HOME": "/h"])
        #expect(plain.cache == "/h/.cache/huggingface/hub")
        #expect("\(plain.endpoint)" == "https://huggingface.co")
        #expect(plain.token == nil)
        let full = try HubEnvironment([
            "HOME": "/h", "HF_HOME": "~/x", "HF_TOKEN": " t\n", "HF_ENDPOINT": "https://mirror.test",
        ])
        #expect(full.cache == "/h/x/hub")
        #expect(full.token == "t")
        #expect("\(full.endpoint)" == "https://mirror.test")
        #expect(try HubEnvironment(["HF_HOME": "/x", "HF_HUB_CACHE": "/y"]).cache == "/y")
        #expect(throws: FetchError.self) { try HubEnvironment([:]) }
        #expect(throws: FetchError.self) { try HubEnvironment(["HOME": "/h", "HF_TOKEN": "a b"]) }
        #expect(throws: FetchError.self) { try HubEnvironment(["HOME": "/h"], endpoint: "file:///x") }
    }

    @Test(
        "a manifest without files, or with invalid names, is refused",
        arguments: [
            "{}", #"{"formatVersion":1,"name":"pool-0"}"#, #"{"formatVersion":1,"name":"pool-0","files":[]}"#,
            #"{"formatVersion":1,"name":"p","files":[{"name":"../x","byteCount":1,"sha256":"\#(zeros)"}]}"#,
            #"{"formatVersion":1,"name":"p","files":[{"name":"manifest.json","byteCount":1,"sha256":"\#(zeros)"}]}"#,
            #"{"formatVersion":1,"name":"p","files":[{"name":"a","byteCount":-1,"sha256":"\#(zeros)"}]}"#,
            #"{"formatVersion":1,"name":"p","files":[{"name":"a","byteCount":1,"sha256":"00"}]}"#,
        ]
    )
    func badManifest(text: String) throws {
        let address = try RemoteAddress(parsing: endpoint)
        #expect(throws: FetchError.self) { try PartManifest(parsing: Array(text.utf8), from: address) }
    }
}

private let zeros = String(repeating: "0", count: 64)
