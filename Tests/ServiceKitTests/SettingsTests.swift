// SPDX-License-Identifier: Apache-2.0

import Foundation
import ServiceKit
import Testing

private let keys = ["listen", "batch-slots", "layer-deadline-ms", "strict", "pool", "max-dropped-fraction"]

/// Settings from the given layers, the file written to a folder of its own for as long as the body runs.
private func withSettings(
    flags: [String: String] = [:],
    environment: [String: String] = [:],
    file text: String? = nil,
    _ body: (Settings) throws -> Void
) async throws {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("settings-\(UUID().uuidString).json")
    defer { try? FileManager.default.removeItem(at: path) }
    try text.map { try Data($0.utf8).write(to: path) }
    try body(
        try await Settings(known: keys, flags: flags, environment: environment, file: text == nil ? nil : path.path)
    )
}

@Suite("Settings")
struct SettingsTests {
    @Test("flags go before the environment, the environment before the file, the file before defaults")
    func layers() async throws {
        let file = #"{"listen": "file:1", "batch-slots": 3, "strict": true, "pool": ["a=h:1", "b=h:2"]}"#
        let environment = ["SWITCHYARD_LISTEN": "environment:1", "SWITCHYARD_BATCH_SLOTS": "2"]
        try await withSettings(flags: ["listen": "flag:1"], environment: environment, file: file) { settings throws in
            #expect(try settings.string("listen") == "flag:1")
            #expect(try settings.int("batch-slots", in: 1...100, default: 9) == 2)
            #expect(try settings.bool("strict"))
            #expect(try settings.strings("pool") == ["a=h:1", "b=h:2"])
            #expect(try settings.int("layer-deadline-ms", in: 1...100, default: 9) == 9)
            #expect(try settings.double("max-dropped-fraction", in: 0...1, default: 0.5) == 0.5)
        }
        try await withSettings(environment: environment, file: file) { settings throws in
            #expect(try settings.string("listen") == "environment:1")
        }
        try await withSettings(file: file) { settings throws in
            #expect(try settings.string("listen") == "file:1")
            #expect(try settings.int("batch-slots", in: 1...100, default: 9) == 3)
        }
        try await withSettings { settings throws in
            #expect(try settings.string("listen") == nil)
            #expect(try settings.strings("pool") == nil)
            #expect(try !settings.bool("strict"))
        }
    }

    @Test("lists stand between semicolons outside the file")
    func lists() async throws {
        try await withSettings(environment: ["SWITCHYARD_POOL": "a=h:1,h:2; b=h:3"]) { settings throws in
            #expect(try settings.strings("pool") == ["a=h:1,h:2", "b=h:3"])
        }
        try await withSettings(flags: ["pool": "a=h:1"]) { settings throws in
            #expect(try settings.strings("pool") == ["a=h:1"])
        }
    }

    @Test("an empty variable is not set")
    func emptyVariable() async throws {
        try await withSettings(environment: ["SWITCHYARD_BATCH_SLOTS": ""], file: #"{"batch-slots": 3}"#) {
            settings throws in
            #expect(try settings.int("batch-slots", in: 1...100, default: 9) == 3)
        }
    }

    @Test("a whole number in the file is also a number")
    func wholeNumber() async throws {
        try await withSettings(file: #"{"max-dropped-fraction": 1}"#) { settings throws in
            #expect(try settings.double("max-dropped-fraction", in: 0...1, default: 0) == 1)
        }
    }

    @Test(
        "a value that cannot be used is named with its layer, and no lower layer takes its place",
        arguments: [
            (["batch-slots": "many"], [:], "the flag --batch-slots must be a whole number, and not \"many\""),
            ([:], ["SWITCHYARD_BATCH_SLOTS": "2.5"], "the environment variable SWITCHYARD_BATCH_SLOTS must be"),
            (["batch-slots": "0"], [:], "batch-slots is 0, but must be from 1 to 100"),
        ] as [([String: String], [String: String], String)]
    )
    func badValue(flags: [String: String], environment: [String: String], part: String) async throws {
        try await withSettings(flags: flags, environment: environment, file: #"{"batch-slots": 3}"#) {
            settings throws in
            let error = #expect(throws: Settings.Failure.self) {
                try settings.int("batch-slots", in: 1...100, default: 9)
            }
            #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
        }
    }

    @Test(
        "values of another type in the file are named",
        arguments: [
            (#"{"batch-slots": "three"}"#, "\"batch-slots\" in "), (#"{"batch-slots": 2.5}"#, "and not 2.5"),
            (#"{"batch-slots": [1]}"#, "must be a whole number"),
        ]
    )
    func badFileValue(file: String, part: String) async throws {
        try await withSettings(file: file) { settings throws in
            let error = #expect(throws: Settings.Failure.self) {
                try settings.int("batch-slots", in: 1...100, default: 9)
            }
            #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
        }
    }

    @Test("numbers that are none are out of range", arguments: ["nan", "inf", "2"])
    func notANumber(text: String) async throws {
        try await withSettings(flags: ["max-dropped-fraction": text]) { settings throws in
            #expect(throws: Settings.Failure.self) {
                try settings.double("max-dropped-fraction", in: 0...1, default: 0)
            }
        }
    }

    @Test(
        "a file that cannot be used is refused as a whole",
        arguments: [
            (#"{"listen": "a:1", "lisen": "b:1", "slots": 1}"#, "unknown keys lisen, slots; known are batch-slots"),
            (#"{"lisen": "b:1"}"#, "unknown key lisen;"), ("[1]", "must be one JSON object"),
            ("{\"listen\": ", "must be one JSON object"), ("", "must be one JSON object"),
            (#"{"listen": null}"#, "\"listen\" must be a text"),
            (#"{"listen": {"port": 1}}"#, "\"listen\" must be a text"),
            (#"{"pool": ["a", {}]}"#, "not a usable"),
        ]
    )
    func badFile(file: String, part: String) async {
        let error = await #expect(throws: Settings.Failure.self) { try await withSettings(file: file) { _ in } }
        #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
    }

    @Test("a file that is not there is named")
    func missingFile() async {
        let error = await #expect(throws: Settings.Failure.self) {
            try await Settings(known: keys, flags: [:], environment: [:], file: "/nowhere/settings.json")
        }
        #expect(error?.description.hasPrefix("/nowhere/settings.json: cannot read") == true)
    }

    @Test("a file's misspelt key is told what was perhaps meant")
    func nearestKey() async {
        let error = await #expect(throws: Settings.Failure.self) {
            try await withSettings(file: #"{"lisen": "b:1", "something-else": 1}"#) { _ in }
        }
        #expect(error?.description.hasSuffix(". Meant was perhaps listen for lisen") == true)
    }

    @Test(
        "a variable that is no setting of any command is refused, with what was perhaps meant",
        arguments: [
            ("SWITCHYARD_LISTN", "SWITCHYARD_LISTEN for SWITCHYARD_LISTN"),
            ("SWITCHYARD_BATCH_SLOT", "SWITCHYARD_BATCH_SLOTS for"), ("SWITCHYARD_SHRAD", "SWITCHYARD_SHARD for"),
            ("SWITCHYARD_XYLOPHONE", "SWITCHYARD_XYLOPHONE, which is no setting"), ("SWITCHYARD_PORT", "no setting"),
            ("SWITCHYARD_", "no setting"),
        ]
    )
    func unknownVariable(name: String, part: String) async {
        let error = await #expect(throws: Settings.Failure.self) {
            try await Settings(known: keys, elsewhere: ["shard"], flags: [:], environment: [name: "1"], file: nil)
        }
        #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
    }

    @Test(
        "variables of other commands, of Kubernetes, of the project's own tools and of people's own are let be",
        arguments: [
            ("SWITCHYARD_SHARD", "shards/pool-0"), ("SWITCHYARD_LISTN", ""), ("SWITCHYARD_X_REGION", "eu"),
            ("SWITCHYARD_TEST_PYTHON", "python3"), ("OTHER_LISTN", "1"),
            ("SWITCHYARD_PORT", "tcp://10.0.0.1:7400"), ("SWITCHYARD_SERVICE_HOST", "10.0.0.1"),
            ("SWITCHYARD_GATEWAY_SERVICE_PORT_GRPC", "7400"), ("SWITCHYARD_GATEWAY_PORT_7400_TCP_ADDR", "10.0.0.1"),
        ]
    )
    func letBe(name: String, value: String) async throws {
        _ = try await Settings(known: keys, elsewhere: ["shard"], flags: [:], environment: [name: value], file: nil)
    }

    @Test("what is in force is known with where it comes from")
    func inForce() async throws {
        try await withSettings(
            flags: ["listen": "flag:1"],
            environment: ["SWITCHYARD_POOL": "a=h:1; b=h:2"],
            file: #"{"listen": "file:1", "strict": true}"#
        ) { settings throws in
            _ = try settings.int("batch-slots", in: 1...100, default: 9)
            _ = try settings.strings("pool")
            let found = Dictionary(uniqueKeysWithValues: settings.inForce.map { ($0.key, $0) })
            #expect(found.keys.sorted() == keys.sorted())
            #expect(found["listen"]?.values == ["flag:1"])
            #expect(found["listen"]?.source == .flag)
            #expect(found["pool"]?.values == ["a=h:1", "b=h:2"])
            #expect(found["pool"]?.source == .environment("SWITCHYARD_POOL"))
            #expect(found["batch-slots"]?.values == ["9"])
            #expect(found["batch-slots"]?.source == .standard)
            #expect(found["max-dropped-fraction"]?.values == [])
            guard case .file = found["strict"]?.source else {
                Issue.record("\(String(describing: found["strict"]))")
                return
            }
        }
    }

    @Test("a token is in force without being shown")
    func secret() async throws {
        let settings = try await Settings(
            known: ["token"],
            flags: [:],
            environment: ["SWITCHYARD_TOKEN": "0123456789abcdef"],
            file: nil
        )
        #expect(settings.inForce.map(\.values) == [["***"]])
    }

    @Test("a key's variable is its name in capitals")
    func variables() {
        #expect(Settings.variable("layer-deadline-ms") == "SWITCHYARD_LAYER_DEADLINE_MS")
    }
}

@Suite("Listen addresses")
struct ListenAddressTests {
    @Test(
        "hosts and ports are read and written back",
        arguments: [
            ("127.0.0.1:7400", "127.0.0.1", 7400, "127.0.0.1:7400"), ("localhost:0", "localhost", 0, "localhost:0"),
            ("[::1]:65535", "::1", 65_535, "[::1]:65535"), (":7400", "0.0.0.0", 7400, "0.0.0.0:7400"),
        ]
    )
    func parsing(text: String, host: String, port: Int, written: String) throws {
        let address = try ListenAddress(parsing: text)
        #expect(address == ListenAddress(host: host, port: port))
        #expect(address.description == written)
    }

    @Test(
        "what is no address is named",
        arguments: [
            ("7400", "host:port"), ("", "host:port"), ("::1:7400", "[address]:port"), ("[::1]", "[address]:port"),
            ("[::1]7400", "[address]:port"), ("[]:7400", "between the brackets"), ("a:", "from 0 to 65535"),
            ("a:-1", "from 0 to 65535"), ("a:65536", "65536"), ("a:http", "\"http\""),
        ]
    )
    func refusing(text: String, part: String) {
        let error = #expect(throws: Settings.Failure.self) { try ListenAddress(parsing: text) }
        #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
    }
}
