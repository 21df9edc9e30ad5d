// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertServing
import GatewayServing
import HTTPDoor
import ServiceKit
import Telemetry

/// The tables of settings, metrics and generation's keys in `docs/operations.md` and `docs/training.md`, made from the
/// definitions.
///
/// A table stands between the lines `<!-- table: NAME -->` and `<!-- end of table -->`.
enum DocumentTables {
    /// A marker in a document that names no table.
    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    private static let beginning = "<!-- table: "
    private static let end = "<!-- end of table -->"

    /// Settings by the tables' names.
    static let settings: [String: [SettingDefinition]] = [
        "settings expert-host": ExpertHostSettings.table.definitions,
        "settings gateway": GatewaySettings.table.definitions
            .filter { !GatewaySettings.table.pools.definitions.contains($0) },
        "settings expert-pools": GatewaySettings.table.pools.definitions,
        "settings http": DoorSettings.table.definitions,
        "settings fetching": FetchSettings.table.definitions,
        "settings listener": ListenerSecuritySettings.table.definitions,
        "settings experts-tls": ExpertsSecuritySettings.table.definitions,
        "settings tokens": TokensSettings.table.definitions,
        "settings client": ClientSettings.table.definitions,
        "settings admin": CommandSettings.anyAdmin.definitions,
        "settings service": ServiceSettings.table.definitions,
        "settings data": TrainingDataSettings.table.definitions,
        "settings train": TrainSettings.table.definitions,
        "settings distill": DistillSettings.table.definitions,
        "settings train-hosts": TrainClusterSettings.table.own,
    ]

    /// Metrics by the tables' names.
    static let metrics: [String: [MetricDefinition]] = [
        "metrics service": MetricCatalog.service.definitions,
        "metrics listener": MetricCatalog.transport.definitions,
        "metrics http": MetricCatalog.http.definitions,
        "metrics engine": MetricCatalog.engine.definitions,
        "metrics pools": MetricCatalog.pools.definitions,
        "metrics host": MetricCatalog.host.definitions,
        "metrics training": MetricCatalog.training.definitions,
        "metrics training-shards": MetricCatalog.trainingShards.definitions,
        "metrics training-host": MetricCatalog.trainingHost.definitions,
    ]

    /// The name of the table of generation's keys.
    static let generation = "generation keys"

    /// Rewrites every table of a document.
    ///
    /// - Parameter document: A document with markers.
    /// - Returns: The document with the tables as they should be.
    /// - Throws: ``Failure`` for an unknown table, or one without an end.
    static func updated(_ document: String) throws(Failure) -> String {
        var result: [Substring] = []
        var open: Substring?
        for line in document.split(separator: "\n", omittingEmptySubsequences: false) {
            if open != nil {
                guard line == Self.end else { continue }
                open = nil
            }
            result.append(line)
            guard line.hasPrefix(Self.beginning) else { continue }
            let rest = line.dropFirst(Self.beginning.count)
            guard rest.hasSuffix(" -->") else {
                throw Failure(description: "the line \"\(line)\" does not end with -->")
            }
            for row in try Self.rows(String(rest.dropLast(" -->".count))) { result.append(row[...]) }
            open = line
        }
        if let open { throw Failure(description: "the table of the line \"\(open)\" does not end with \(Self.end)") }
        return result.joined(separator: "\n")
    }

    /// The lines of a table.
    private static func rows(_ name: String) throws(Failure) -> [String] {
        if let settings = Self.settings[name] {
            return Self.markdown(["Setting", "Default", "Allowed", "Meaning"], settings.map(\.markdownRow))
        }
        if let metrics = Self.metrics[name] {
            return Self.markdown(["Name", "Type", "Labels", "Meaning"], metrics.map(\.markdownRow))
        }
        if name == Self.generation {
            let titles = ["Key", "Flag", "Read by", "Changes nothing", "Meaning", "In transformers"]
            return Self.markdown(titles, GenerationKey.all.map(\.markdownRow))
        }
        let names = ([Self.generation] + Array(Self.settings.keys) + Array(Self.metrics.keys)).sorted()
            .joined(separator: ", ")
        throw Failure(description: "there is no table \"\(name)\"; there are \(names)")
    }

    /// A table in Markdown.
    static func markdown(_ titles: [String], _ rows: [[String]]) -> [String] {
        ([titles] + [titles.map { _ in "---" }] + rows)
            .enumerated()
            .map { index, cells in
                index == 1
                    ? "|" + cells.map { "\($0)|" }.joined()
                    : "|" + cells.map { $0.isEmpty ? " |" : " \($0) |" }.joined()
            }
    }
}
