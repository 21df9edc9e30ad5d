// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import Logging
import ServiceKit
import WeightFetching

/// How a service gets weights that an address names, as flags.
struct FetchOptions: ParsableArguments {
    /// The settings' keys.
    static let keys = ["shard-cache", "fetch-ca"]

    @Option(
        help: ArgumentHelp(
            "Where weights that an https:// address names are kept. (default: switchyard/shards in the user's cache)",
            valueName: "dir"
        )
    )
    var shardCache: String?

    @Option(
        help: ArgumentHelp(
            "Fetching: trust these authorities (PEM) in place of the system's; also SSL_CERT_FILE.",
            valueName: "file"
        )
    )
    var fetchCa: String?

    /// What was given, by key.
    var flags: [String: String?] {
        ["shard-cache": self.shardCache, "fetch-ca": self.fetchCa]
    }

    /// How to connect.
    ///
    /// - Parameters:
    ///   - settings: All settings of the command.
    ///   - environment: The process's environment.
    ///   - jobs: Files fetched at once.
    /// - Returns: The configuration.
    /// - Throws: ``Settings/Failure``.
    static func client(
        _ settings: Settings,
        environment: [String: String],
        jobs: Int
    ) throws -> WebClientConfiguration {
        var client = WebClientConfiguration()
        client.jobs = jobs
        let file = environment["SSL_CERT_FILE"].flatMap { $0.isEmpty ? nil : $0 }
        client.authorityFile =
            try file.map { try settings.string("fetch-ca", default: $0) } ?? settings.string("fetch-ca")
        client.userAgent = "switchyard/\(SoftwareVersion.current)"
        return client
    }

    /// Refuses plaintext across a network unless it was asked for by name.
    ///
    /// - Parameters:
    ///   - address: What is fetched from.
    ///   - settings: All settings of the command.
    /// - Throws: ``Settings/Failure`` saying what to set.
    static func check(_ address: RemoteAddress, _ settings: Settings) throws {
        guard !address.isEncrypted else { return }
        try SecuritySettings.checkPlaintext(
            settings,
            host: address.host,
            what: "fetching from \(address)",
            instead: "an https:// address"
        )
    }
}

/// Where a service's weights come from: folders, hub ids in the local cache, and addresses.
struct WeightSources: Sendable {
    private enum Source: Sendable {
        case local(String)
        case remote(PartFetch, RemoteAddress)
    }

    private let sources: [Source]

    /// Reads what was given; nothing is looked for yet.
    ///
    /// - Parameters:
    ///   - names: Folders, hub ids or addresses.
    ///   - settings: All settings of the command.
    /// - Throws: ``Settings/Failure`` and `FetchError` for an address that cannot be used.
    init(_ names: [String], _ settings: Settings) throws {
        let environment = ProcessInfo.processInfo.environment
        let usual = PartFetch.usualCache(environment)
        let cache = try usual.map { try settings.string("shard-cache", default: $0) } ?? settings.string("shard-cache")
        let client = try FetchOptions.client(settings, environment: environment, jobs: 4)
        self.sources = try names.map { name in
            guard RemoteAddress.looksLikeAddress(name) else { return .local(name) }
            let address = try RemoteAddress(parsing: name)
            try FetchOptions.check(address, settings)
            return .remote(
                try PartFetch(address, cache: cache, client: client),
                address
            )
        }
    }

    /// The folders, in the order in which they were given; what is not on this machine is fetched.
    ///
    /// - Parameter logger: Told how far that is.
    /// - Returns: The folders.
    /// - Throws: What keeps the weights from coming.
    func directories(logger: Logger) async throws -> [String] {
        let log = FetchLog(logger: logger)
        var directories: [String] = []
        for source in self.sources {
            switch source {
            case .local(let name):
                directories.append(try ModelSettings.directory(name))
            case .remote(let fetch, let address):
                let start = ContinuousClock.now
                logger.info("fetching weights", metadata: ["from": "\(address)"])
                let report = try await fetch.run { log.note($0) }
                logger.info(
                    "weights are here",
                    metadata: [
                        "part": "\(report.name)", "folder": "\(report.directory)", "bytes": "\(report.byteCount)",
                        "fetched": "\(report.receivedBytes)", "time": "\(Terminal.time(start.duration(to: .now)))",
                    ]
                )
                directories.append(report.directory)
            }
        }
        return directories
    }

    /// Looks for what is on this machine; fetches nothing.
    ///
    /// - Throws: ``CheckpointError`` for a folder that is not there.
    func check() throws {
        for case .local(let name) in self.sources { _ = try ModelSettings.directory(name) }
    }
}
