// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import SwitchyardProtos
import Testing

@testable import switchyard

@Suite("What status prints")
struct StatusTests {
    private static func picture(_ rows: [[UInt64]], columns: Int = 80, all: Bool = false) -> RoutingPicture {
        RoutingPicture(
            layers: rows.enumerated().map { .init(name: "encoder \($0.offset)", rows: $0.element, dropped: 3) },
            pools: (0..<(rows.first?.count ?? 0)).map { "pool-\($0 * 2 / max(1, rows[0].count))" },
            usesColour: false,
            columns: columns,
            showsAllExperts: all
        )
    }

    private static func numbers(in line: Substring) -> [UInt64] {
        line.split { !$0.isNumber }.compactMap { UInt64($0) }
    }

    @Test("numbers are exact, however long", arguments: [128_001, 4_294_967_296, UInt64.max])
    func exactNumbers(most: UInt64) {
        let rows: [UInt64] = [most, 0, 7, most / 3]
        let text = Self.picture([rows], columns: 120).text
        let line = text.split(separator: "\n").last ?? ""
        #expect(Self.numbers(in: line) == [0] + rows + [3], "\(text)")
    }

    @Test("eight experts with six-digit numbers fit into 80 columns")
    func narrow() {
        let text = Self.picture([[128_001, 128_002, 99_999, 0, 1, 100_000, 999_999, 5]]).text
        #expect(text.contains("expert") && text.contains("128001") && text.contains("999999"), "\(text)")
        #expect(text.split(separator: "\n").allSatisfy { $0.count <= 80 }, "\(text)")
    }

    @Test("no line is longer than the terminal with 2,048 experts", arguments: [40, 80, 132, 200])
    func manyExperts(columns: Int) {
        var random = SystemRandomNumberGenerator()
        let rows = (0..<2).map { _ in (0..<2048).map { _ in UInt64.random(in: 0...200_000, using: &random) } }
        let summary = Self.picture(rows, columns: columns).text
        #expect(summary.contains("--experts"), "\(summary)")
        #expect(summary.split(separator: "\n").allSatisfy { $0.count <= columns }, "\(summary)")
        let all = Self.picture(rows, columns: columns, all: true).text
        #expect(all.split(separator: "\n").allSatisfy { $0.count <= columns })
        // Every number is there, in order.
        let found = all.split(separator: "\n").filter { $0.hasPrefix("encoder 0") }
            .flatMap { Self.numbers(in: $0).dropFirst().dropLast() }
        #expect(found == rows[0])
    }

    @Test("a summary gives the fewest, median and most rows, counts idle experts and names the hottest")
    func summary() {
        let load = LoadSummary([5, 0, 9, 9, 0, 2, 1, 3, 4, 6, 7])
        #expect(load.total == 46)
        #expect((load.least, load.median, load.most) == (0, 4, 9))
        #expect(load.idle == 2)
        #expect(load.hottest.map(\.expert) == [2, 3, 10, 9, 0, 8, 7, 5])
        #expect(LoadSummary([]).hottest.isEmpty)
        #expect(LoadSummary([0, 0]).hottest.isEmpty)
    }

    /// A cluster of two pools with this many experts each and long addresses.
    private static func cluster(experts: UInt32) -> ClusterDescription {
        var cluster = ClusterDescription()
        cluster.pools = (0..<2)
            .map { pool in
                // Every second expert, which no range shortens.
                let held = (0..<experts).filter { $0 % 2 == pool }
                var description = PoolDescription(
                    name: "pool-\(pool)",
                    experts: [LayerExperts(stack: .encoder, layer: 1, experts: held)]
                )
                var replica = ReplicaDescription()
                replica.address = "expert-host-\(pool).switchyard.svc.cluster.local:7401"
                replica.state = pool == 0 ? .ready : .mismatched
                replica.detail = String(repeating: "it has another fingerprint than the gateway; ", count: 5)
                replica.rows = 123_456_789
                description.replicas = [replica]
                return description
            }
        cluster.expertLoad = [
            LayerLoad(stack: .encoder, layer: 1, rows: (0..<UInt64(experts)).map { $0 * 1000 }, rowsPerSecond: [])
        ]
        return cluster
    }

    @Test("no line of the whole report is longer than the terminal", arguments: [80, 120], [8, 64, 2048] as [UInt32])
    func wholeReport(columns: Int, experts: UInt32) {
        var model = ModelDescription()
        model.name = "google/switch-base-8"
        model.expertsPerLayer = experts
        let report = ClusterReport(model: model, cluster: Self.cluster(experts: experts), columns: columns)
        let long = report.text.split(separator: "\n").filter { $0.count > columns }
        #expect(long.isEmpty, "\(long)")
        #expect(report.text.contains("123456789"))
        #expect(report.text.contains("mismatched"))
    }

    @Test("JSON has every expert, every host and the wire's words for states")
    func json() throws {
        let status = ClusterStatus(model: ModelDescription(), cluster: Self.cluster(experts: 2048))
        let text = try status.json()
        let object = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        let layer = try #require((object["layers"] as? [[String: Any]])?.first)
        #expect((layer["rows"] as? [Int])?.count == 2048)
        #expect((layer["rows"] as? [Int])?.last == 2_047_000)
        let pools = try #require(object["pools"] as? [[String: Any]])
        #expect(pools.compactMap { ($0["experts"] as? [Int])?.count } == [1024, 1024])
        let states = pools.flatMap { ($0["hosts"] as? [[String: Any]] ?? []).compactMap { $0["state"] as? String } }
        #expect(states == ["ready", "mismatched"])
    }

    @Test("a fingerprint that begins with zeros has all its digits, as in manifests and messages")
    func fingerprint() throws {
        var model = ModelDescription()
        model.fingerprint = 0xabc
        let cluster = Self.cluster(experts: 8)
        #expect(ClusterReport(model: model, cluster: cluster, columns: 200).text.contains("0000000000000abc"))
        #expect(try ClusterStatus(model: model, cluster: cluster).json().contains("\"0000000000000abc\""))
    }

    @Test("a table that is too wide continues below, and texts are cut, but never numbers")
    func wideTable() {
        var table = TextTable([("name", .left), ("text", .left), ("first", .right), ("second", .right)])
        table.add(["a", String(repeating: "x", count: 100), "123456789", "987654321"])
        let lines = table.text(columns: 30).split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines.allSatisfy { $0.count <= 30 }, "\(lines)")
        #expect(lines.contains { $0.contains("…") })
        #expect(
            lines.contains { $0.hasPrefix("a") && $0.contains("123456789") && $0.contains("987654321") },
            "\(lines)"
        )
        #expect(!table.text(columns: 200).contains("\n\n"))
    }

    @Test("text is broken between words, and colours take no columns")
    func wrapping() {
        #expect("one two three".wrapped(columns: 8) == "one two\n  three")
        #expect("one  two".wrapped(columns: 80) == "one  two")
        #expect("\u{1B}[1mone\u{1B}[0m two".wrapped(columns: 7) == "\u{1B}[1mone\u{1B}[0m two")
    }
}
