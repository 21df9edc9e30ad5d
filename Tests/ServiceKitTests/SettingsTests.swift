// SPDX-License-Identifier: Apache-2.0

import Foundation
import ServiceKit
import Testing

/// Settings of every kind.
private struct SampleSettings: SettingTable {
    static let table = SampleSettings()

    let listen = Setting.text("listen", "An address.")
    let batchSlots = Setting.whole("batch-slots", in: 1...100, default: 9, "Rows.")
    let deadline = Setting.time("layer-deadline-ms", .milliseconds, in: 1...100, default: 9, "A time.")
    let strict = Setting.toggle("strict", "A switch.")
    let pool = Setting.texts("pool", "A list.")
    let multiple = Setting.zeroOrNumber("deadline-multiple", in: 1...10, "A factor.")
    let color = Setting.choice("color", of: ["red", "green", "blue"], default: "red", name: { $0 }, "A choice.")
    let pairs = Setting.list("pairs", allowed: "A=B", "A list with a form of its own.") { text in
        text.contains("=") ? text : nil
    }
    let shard = Setting.parsed("shard", default: 0, written: nil, allowed: "a number", range: "", "A form.") { text in
        guard let number = Int(text) else { throw Settings.Failure("\"\(text)\" has no digits") }
        return number
    }
    let token = Setting.text("token", isSecret: true, "A secret.")
}

private let table = SampleSettings.table
private let elsewhere = [Setting.text("max-rows", "A setting of another command.").definition]

/// Settings from the given layers, with the file in a temporary folder while the body runs.
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
        try await Settings(
            known: table.definitions,
            elsewhere: elsewhere,
            flags: flags,
            environment: environment,
            file: text == nil ? nil : path.path
        )
    )
}

@Suite("Settings")
struct SettingsTests {
    @Test("flags override the environment, the environment the file, the file the defaults")
    func layers() async throws {
        let file = #"{"listen": "file:1", "batch-slots": 3, "strict": true, "pool": ["a=h:1", "b=h:2"]}"#
        let environment = ["SWITCHYARD_LISTEN": "environment:1", "SWITCHYARD_BATCH_SLOTS": "2"]
        try await withSettings(flags: ["listen": "flag:1"], environment: environment, file: file) { settings throws in
            #expect(try settings.value(table.listen) == "flag:1")
            #expect(try settings.value(table.batchSlots) == 2)
            #expect(try settings.value(table.strict))
            #expect(try settings.value(table.pool) == ["a=h:1", "b=h:2"])
            #expect(try settings.value(table.deadline) == .milliseconds(9))
            #expect(try settings.value(table.multiple) == 0)
            #expect(try settings.value(table.color) == "red")
            #expect(settings.isSet(table.strict) && !settings.isSet(table.color))
        }
        try await withSettings(environment: environment, file: file) { settings throws in
            #expect(try settings.value(table.listen) == "environment:1")
        }
        try await withSettings(file: file) { settings throws in
            #expect(try settings.value(table.listen) == "file:1")
            #expect(try settings.value(table.batchSlots) == 3)
        }
        try await withSettings { settings throws in
            #expect(try settings.value(table.listen) == nil)
            #expect(try settings.value(table.batchSlots) == 9)
            #expect(try settings.value(table.pool) == [])
            #expect(try !settings.value(table.strict))
        }
    }

    @Test("lists are separated by semicolons outside the file")
    func lists() async throws {
        try await withSettings(environment: ["SWITCHYARD_POOL": "a=h:1,h:2; b=h:3"]) { settings throws in
            #expect(try settings.value(table.pool) == ["a=h:1,h:2", "b=h:3"])
        }
        try await withSettings(flags: ["pool": "a=h:1"]) { settings throws in
            #expect(try settings.value(table.pool) == ["a=h:1"])
        }
    }

    @Test("a semicolon within a value of a list is written with a backslash, and every list survives being joined")
    func semicolons() async throws {
        try await withSettings(environment: ["SWITCHYARD_POOL": #"/srv/a\;b; c:\d ;e\"#]) { settings throws in
            #expect(try settings.value(table.pool) == ["/srv/a;b", #"c:\d"#, #"e\"#])
        }
        for values in [["a;b", "c"], [";"], ["a"], [], [#"a\b"#, "c;;d"]] {
            #expect(Settings.parts(of: Settings.join(values)) == values)
        }
    }

    @Test(
        "a variable in quotes is refused: an environment file kept them",
        arguments: ["\"rack-7\"", "'rack-7'", "''"]
    )
    func quotes(value: String) async throws {
        let failure = await #expect(throws: Settings.Failure.self) {
            try await withSettings(environment: ["SWITCHYARD_TOKEN": value]) { _ in }
        }
        #expect(failure?.description.contains("SWITCHYARD_TOKEN begins and ends with \(value.prefix(1)): ") == true)
        #expect(failure?.description.contains("rack-7") == false)
    }

    @Test("quotes within a value belong to it")
    func innerQuotes() async throws {
        for value in ["\"a\" b", "a\"b\"", "\"", "'a\""] {
            try await withSettings(environment: ["SWITCHYARD_LISTEN": value]) { settings throws in
                #expect(try settings.value(table.listen) == value)
            }
        }
    }

    @Test(
        "a zone is a name that hosts can have",
        arguments: ["rack 7", "\"rack-7\"", "räck", String(repeating: "a", count: 64)]
    )
    func zones(value: String) async throws {
        let zone = Setting.zone("A zone.")
        let settings = try await Settings(
            known: [zone.definition],
            flags: ["zone": value],
            environment: [:],
            file: nil
        )
        let failure = #expect(throws: Settings.Failure.self) { try settings.value(zone) }
        #expect(
            failure?.description.contains("the flag --zone is \"\(value)\"; it must be a name of 1 to 63 of A-Z")
                == true
        )
        let usable = try await Settings(
            known: [zone.definition],
            flags: ["zone": "rack_7.b-2"],
            environment: [:],
            file: nil
        )
        #expect(try usable.value(zone) == "rack_7.b-2")
    }

    @Test("an empty variable is not set")
    func emptyVariable() async throws {
        try await withSettings(environment: ["SWITCHYARD_BATCH_SLOTS": ""], file: #"{"batch-slots": 3}"#) {
            settings throws in
            #expect(try settings.value(table.batchSlots) == 3)
        }
    }

    @Test("a whole number in the file is also a number, and a time has its unit")
    func wholeNumber() async throws {
        try await withSettings(file: #"{"deadline-multiple": 4, "layer-deadline-ms": 7}"#) { settings throws in
            #expect(try settings.value(table.multiple) == 4)
            #expect(try settings.value(table.deadline) == .milliseconds(7))
        }
    }

    @Test(
        "a wrong value is named with its place and what is allowed, and no lower layer takes its place",
        arguments: [
            (
                ["batch-slots": "many"], [:],
                "the flag --batch-slots is \"many\"; it must be a whole number from 1 to 100"
            ),
            (["batch-slots": "0"], [:], "the flag --batch-slots is \"0\"; it must be a whole number from 1 to 100"),
            (
                [:], ["SWITCHYARD_BATCH_SLOTS": "2.5"],
                "the environment variable SWITCHYARD_BATCH_SLOTS is \"2.5\"; it must be a whole number from 1 to 100"
            ),
        ] as [([String: String], [String: String], String)]
    )
    func badValue(flags: [String: String], environment: [String: String], message: String) async throws {
        try await withSettings(flags: flags, environment: environment, file: #"{"batch-slots": 3}"#) {
            settings throws in
            let error = #expect(throws: Settings.Failure.self) { try settings.value(table.batchSlots) }
            #expect(error?.description == message)
        }
    }

    @Test("every kind of setting says what it allows")
    func kinds() async throws {
        let flags = [
            "layer-deadline-ms": "0", "strict": "maybe", "deadline-multiple": "0.5", "color": "pink", "pairs": "a=b;c",
            "shard": "x",
        ]
        try await withSettings(flags: flags) { settings throws in
            func message(_ read: () throws -> Void) -> String {
                let error = #expect(throws: Settings.Failure.self) { try read() }
                return error?.description ?? ""
            }
            #expect(
                message { _ = try settings.value(table.deadline) }
                    .hasSuffix("a whole number of milliseconds from 1 to 100")
            )
            #expect(
                message { _ = try settings.value(table.strict) }.hasSuffix("is \"maybe\"; it must be true or false")
            )
            #expect(
                message { _ = try settings.value(table.multiple) }.hasSuffix("it must be 0, or a number from 1 to 10")
            )
            #expect(message { _ = try settings.value(table.color) }.hasSuffix("it must be red, green or blue"))
            #expect(message { _ = try settings.value(table.pairs) }.hasSuffix("is \"a=b;c\"; it must be A=B"))
            #expect(message { _ = try settings.value(table.shard) } == "the flag --shard is \"x\": \"x\" has no digits")
        }
    }

    @Test(
        "a wrong value in the file is named with its line",
        arguments: [
            ("{\n \"batch-slots\": \"three\"}", ", line 2, is \"three\"; it must be a whole number from 1 to 100"),
            (#"{"batch-slots": 2.5}"#, ", line 1, is 2.5; it must be a whole number"),
            ("{\n\"listen\": \"batch-slots\",\n\"batch-slots\":\n101}", ", line 3, is 101; it must be"),
        ]
    )
    func badFileValue(file: String, part: String) async throws {
        try await withSettings(file: file) { settings throws in
            let error = #expect(throws: Settings.Failure.self) { try settings.value(table.batchSlots) }
            #expect(error?.description.hasPrefix("\"batch-slots\" in /") == true, "\(error?.description ?? "")")
            #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
        }
    }

    @Test("NaN and infinity are not allowed", arguments: ["nan", "inf", "11"])
    func notANumber(text: String) async throws {
        try await withSettings(flags: ["deadline-multiple": text]) { settings throws in
            #expect(throws: Settings.Failure.self) { try settings.value(table.multiple) }
        }
    }

    @Test(
        "a file that cannot be used is refused as a whole",
        arguments: [
            (
                "{\"listen\": \"a:1\",\n\"lisen\": \"b:1\", \"slots\": 1}",
                "unknown settings lisen in line 2 (did you mean listen?), slots in line 2; this command's settings are batch-slots"
            ),
            (#"{"lisen": "b:1"}"#, "unknown setting lisen in line 1 (did you mean listen?);"),
            (#"{"max-rows": 1}"#, "unknown setting max-rows in line 1 (a setting of another command);"),
            ("{\"listen\": \"a:1\",\n\"listen\": \"b:1\"}", "\"listen\" is set twice, in lines 1 and 2"),
            ("[1]", "must be one JSON object"), ("{\"listen\": ", "must be one JSON object"),
            ("", "must be one JSON object"), (#"{"listen": null}"#, ", line 1: \"listen\" must be a string"),
            (#"{"listen": {"port": 1}}"#, "\"listen\" must be a string"), (#"{"pool": ["a", {}]}"#, "not a usable"),
        ]
    )
    func badFile(file: String, part: String) async {
        let error = await #expect(throws: Settings.Failure.self) { try await withSettings(file: file) { _ in } }
        #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
    }

    @Test("a missing file is named")
    func missingFile() async {
        let error = await #expect(throws: Settings.Failure.self) {
            try await Settings(known: table.definitions, flags: [:], environment: [:], file: "/nowhere/settings.json")
        }
        #expect(error?.description.hasPrefix("/nowhere/settings.json: cannot read") == true)
    }

    @Test(
        "a variable that is not a setting of any command is refused, with what was probably meant",
        arguments: [
            ("SWITCHYARD_LISTN", "SWITCHYARD_LISTN (did you mean SWITCHYARD_LISTEN?): no command has"),
            ("SWITCHYARD_BATCH_SLOT", "(did you mean SWITCHYARD_BATCH_SLOTS?)"),
            ("SWITCHYARD_MAX_ROW", "(did you mean SWITCHYARD_MAX_ROWS?)"),
            ("SWITCHYARD_XYLOPHONE", "SWITCHYARD_XYLOPHONE: no command has such a setting. Correct or unset it;"),
            ("SWITCHYARD_PORT", "no command has"), ("SWITCHYARD_", "no command has"),
        ]
    )
    func unknownVariable(name: String, part: String) async {
        let error = await #expect(throws: Settings.Failure.self) {
            try await withSettings(environment: [name: "1"]) { _ in }
        }
        #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
    }

    @Test(
        "variables of other commands, of Kubernetes, of the project's own tools and of the user are accepted",
        arguments: [
            ("SWITCHYARD_MAX_ROWS", "1"), ("SWITCHYARD_LISTN", ""), ("SWITCHYARD_X_REGION", "eu"),
            ("SWITCHYARD_TEST_PYTHON", "python3"), ("SWITCHYARD_TEST_CONVERTER", "python3"), ("OTHER_LISTN", "1"),
            ("SWITCHYARD_PORT", "tcp://10.0.0.1:7400"), ("SWITCHYARD_SERVICE_HOST", "10.0.0.1"),
            ("SWITCHYARD_GATEWAY_SERVICE_PORT_GRPC", "7400"), ("SWITCHYARD_GATEWAY_PORT_7400_TCP_ADDR", "10.0.0.1"),
        ]
    )
    func accepted(name: String, value: String) async throws {
        try await withSettings(environment: [name: value]) { _ in }
    }

    @Test("values in force are known with their source, whether or not they were read")
    func inForce() async throws {
        try await withSettings(
            flags: ["listen": "flag:1"],
            environment: ["SWITCHYARD_POOL": "a=h:1; b=h:2", "SWITCHYARD_TOKEN": "0123456789abcdef"],
            file: #"{"listen": "file:1", "strict": true}"#
        ) { settings throws in
            let found = Dictionary(uniqueKeysWithValues: settings.inForce.map { ($0.key, $0) })
            #expect(found.keys.sorted() == table.definitions.map(\.key).sorted())
            #expect(found["listen"]?.values == ["flag:1"])
            #expect(found["listen"]?.source == .flag)
            #expect(found["pool"]?.values == ["a=h:1", "b=h:2"])
            #expect(found["pool"]?.source == .environment("SWITCHYARD_POOL"))
            #expect(found["batch-slots"]?.values == ["9"])
            #expect(found["batch-slots"]?.source == .default)
            #expect(found["shard"]?.values == [])
            #expect(found["token"]?.values == ["***"])
            guard case .file = found["strict"]?.source else {
                Issue.record("\(String(describing: found["strict"]))")
                return
            }
        }
    }

    @Test("flags and tables describe a setting alike")
    func words() {
        #expect(table.batchSlots.definition.variable == "SWITCHYARD_BATCH_SLOTS")
        #expect(table.batchSlots.definition.flagHelp() == "Rows. (1 to 100; default: 9)")
        #expect(table.deadline.definition.flagHelp() == "A time. (1 to 100 ms; default: 9)")
        #expect(table.strict.definition.flagHelp(namesVariable: true) == "A switch. (or SWITCHYARD_STRICT=true)")
        #expect(table.listen.definition.flagHelp() == "An address.")
        #expect(table.color.definition.markdownRow == ["`color`", "`red`", "red, green or blue", "A choice."])
        #expect(table.strict.definition.markdownRow == ["`strict`", "off", "", "A switch."])
    }

    @Test("a value set by a program must keep the same range")
    func chosen() {
        #expect(table.batchSlots.problem(with: 100) == nil)
        #expect(table.batchSlots.problem(with: 101) == "batch-slots is 101; it must be a whole number from 1 to 100")
        #expect(table.deadline.problem(with: .milliseconds(1)) == nil)
        #expect(table.deadline.problem(with: .microseconds(999))?.hasPrefix("layer-deadline-ms is ") == true)
    }
}

@Suite("Listen addresses")
struct ListenAddressTests {
    @Test(
        "hosts and ports are read and written back",
        arguments: [
            ("127.0.0.1:7400", "127.0.0.1", 7400, "127.0.0.1:7400"), ("localhost:0", "localhost", 0, "localhost:0"),
            ("[::1]:65535", "::1", 65_535, "[::1]:65535"), (":7400", "0.0.0.0", 7400, "0.0.0.0:7400"),
            ("unix:/run/a.sock", "unix:/run/a.sock", 0, "unix:/run/a.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock", 0, "unix:/run/a.sock"),
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
            ("unix:a.sock", "absolute path"), ("unix:/a,b", "comma"),
        ]
    )
    func refusing(text: String, part: String) {
        let error = #expect(throws: Settings.Failure.self) { try ListenAddress(parsing: text) }
        #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
    }
}
