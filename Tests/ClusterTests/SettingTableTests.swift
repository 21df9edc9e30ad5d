// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Foundation
import PeerTools
import ServiceKit
import Testing

@testable import switchyard

@Suite("The tables of settings")
struct SettingTableTests {
    @Test("every setting has a flag, and every flag of a service is a setting")
    func flags() throws {
        // Used only by tests and parent processes.
        let hidden: Set = ["address-file", "exit-with-standard-input", "admin-address-file", "http-address-file"]
        let commands: [(any ParsableArguments, [SettingDefinition], Set<String>)] = [
            (try GatewayCommand.parse([]), CommandSettings.gateway, hidden),
            (try ExpertHostCommand.parse([]), CommandSettings.expertHost, hidden),
            (try ClientOptions.parse([]), CommandSettings.client.filter { $0.key != "token" }, []),
            // The model is an argument.
            (
                try TrainCommand.parse([]), CommandSettings.train.filter { $0.key != "model" },
                ["admin-address-file"]
            ),
            (
                try DistillCommand.parse([]), CommandSettings.distill.filter { $0.key != "token" },
                ["admin-address-file"]
            ),
        ]
        for (command, settings, others) in commands {
            let flags = Set(SettingFlags.all(of: command).keys)
            #expect(flags.subtracting(others) == Set(settings.map(\.key)))
            #expect(Set(settings.map(\.key)).count == settings.count)
        }
    }

    @Test("given flags are found under their settings' keys")
    func given() throws {
        let command = try GatewayCommand.parse([
            "--queue-limit", "7", "--pool", "a=h:1", "--pool", "b=h:2", "--pin-threads", "--encode-ms-per-step", "3",
            "--experts-tls-ca", "ca.pem",
        ])
        #expect(
            SettingFlags.given(by: command) == [
                "queue-limit": "7", "pool": "a=h:1;b=h:2", "pin-threads": "true", "encode-ms-per-step": "3",
                "experts-tls-ca": "ca.pem",
            ]
        )
    }

    @Test("a setting's help is short sentences, and a time's key names its unit", arguments: [CommandSettings.all])
    func words(settings: [SettingDefinition]) {
        let units = Set(SettingUnit.allCases.map(\.rawValue))
        for setting in settings {
            #expect(setting.help.last == "." && setting.help.count > 10, "\(setting.key): \(setting.help)")
            #expect(!setting.help.contains("|") && !setting.help.contains("\n"), "\(setting.key)")
            let named = units.intersection(setting.key.split(separator: "-").map(String.init))
            let unit = units.first { setting.range.hasSuffix(" \($0)") && setting.kind == .whole }
            #expect(named == Set([unit].compactMap { $0 }), "\(setting.key): \(setting.range)")
        }
    }

    @Test("the guides have the tables of settings and metrics, word for word")
    func documentation() throws {
        var guide = ""
        for name in ["operations", "training"] {
            let text = try String(contentsOfFile: "\(Peers.root)/docs/\(name).md", encoding: .utf8)
            // `switchyard config list --update docs/operations.md` writes them.
            #expect(try DocumentTables.updated(text) == text)
            guide += text
        }
        let names = Array(DocumentTables.settings.keys) + Array(DocumentTables.metrics.keys)
        for name in names + [DocumentTables.generation] {
            #expect(guide.contains("<!-- table: \(name) -->"), "\(name)")
        }
    }

    @Test("every setting and metric is in one of the tables")
    func complete() {
        let shown = Set(DocumentTables.settings.values.joined().map(\.key))
        #expect(Set(CommandSettings.all.map(\.key)).subtracting(shown) == [])
    }

    @Test("a table is rewritten, and the text around it stays")
    func update() throws {
        let text = "a\n<!-- table: settings tokens -->\nold\n<!-- end of table -->\nb\n"
        let made = try DocumentTables.updated(text)
        #expect(made.hasPrefix("a\n<!-- table: settings tokens -->\n| Setting | Default | Allowed | Meaning |\n"))
        #expect(made.hasSuffix("\n<!-- end of table -->\nb\n") && !made.contains("old"))
        #expect(try DocumentTables.updated(made) == made)
        for wrong in ["<!-- table: settings token -->\n<!-- end of table -->", "<!-- table: settings tokens -->\n"] {
            #expect(throws: DocumentTables.Failure.self) { try DocumentTables.updated(wrong) }
        }
    }
}
