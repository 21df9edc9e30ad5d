// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import CommandKit
import Foundation
import Logging
import ServiceKit
import Tokenization
import WeightFetching

/// Settings for fetching weights from an address.
struct FetchSettings: SettingTable {
    static let table = FetchSettings()

    let shardCache = Setting.text(
        "shard-cache",
        default: PartFetch.usualCache(ProcessInfo.processInfo.environment),
        defaultInWords: "switchyard/shards in XDG_CACHE_HOME or ~/.cache",
        placeholder: "dir",
        "Where fetched parts are kept; a volume if the root file system is read-only."
    )
    let fetchCA = Setting.text(
        "fetch-ca",
        default: ProcessInfo.processInfo.environment["SSL_CERT_FILE"].flatMap { $0.isEmpty ? nil : $0 },
        defaultInWords: "SSL_CERT_FILE, or the system's",
        placeholder: "file",
        "Certificate authorities (PEM) to trust when fetching."
    )
}

/// Flags for fetching weights from an address.
struct FetchOptions: ParsableArguments {
    @Option(FetchSettings.table.shardCache) var shardCache: String?

    @Option(FetchSettings.table.fetchCA) var fetchCa: String?

    /// How to connect.
    ///
    /// - Parameters:
    ///   - settings: All settings of the command.
    ///   - jobs: Files fetched at once.
    /// - Returns: The configuration.
    /// - Throws: ``Settings/Failure``.
    static func client(_ settings: Settings, jobs: Int) throws -> WebClientConfiguration {
        var client = WebClientConfiguration()
        client.jobs = jobs
        client.authorityFile = try settings.value(FetchSettings.table.fetchCA)
        client.userAgent = "switchyard/\(SoftwareVersion.current)"
        return client
    }

    /// Refuses plaintext across a network unless a setting allows it.
    ///
    /// - Parameters:
    ///   - address: The address to fetch from.
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

    /// Parses the names; accesses nothing yet.
    ///
    /// - Parameters:
    ///   - names: Folders, hub ids or addresses.
    ///   - settings: All settings of the command.
    /// - Throws: ``Settings/Failure`` and `FetchError` for an address that cannot be used.
    init(_ names: [String], _ settings: Settings) throws {
        let cache = try settings.value(FetchSettings.table.shardCache)
        let client = try FetchOptions.client(settings, jobs: 4)
        self.sources = try names.map { name in
            guard RemoteAddress.looksLikeAddress(name) else { return .local(name) }
            let address = try RemoteAddress(parsing: name)
            try FetchOptions.check(address, settings)
            return .remote(try PartFetch(address, cache: cache, client: client), address)
        }
    }

    /// The folders, in the order given; fetches those not on this machine.
    ///
    /// - Parameter logger: Logs the progress.
    /// - Returns: The folders.
    /// - Throws: Why the weights cannot be fetched.
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
                    "fetched weights",
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

    /// Loads weights from the folders; a fetched part that turns out damaged is fetched again, once.
    ///
    /// - Parameters:
    ///   - logger: Logs the progress.
    ///   - body: Loads the weights from the folders, in the order given.
    /// - Returns: What the body returns.
    /// - Throws: Why the weights cannot be fetched or loaded.
    func load<R>(logger: Logger, _ body: ([String]) throws -> R) async throws -> R {
        let directories = try await self.directories(logger: logger)
        MappingFault.report(directories)
        do {
            return try body(directories)
        } catch let error where error is CheckpointError || error is TokenizerError {
            guard try await self.removeDamaged(directories, because: error, logger: logger) else { throw error }
        }
        return try body(try await self.directories(logger: logger))
    }

    /// Removes damaged files of fetched parts.
    ///
    /// - Returns: Whether there were any.
    private func removeDamaged(_ directories: [String], because error: any Error, logger: Logger) async throws -> Bool {
        let log = FetchLog(logger: logger)
        var hasRemoved = false
        for (source, directory) in zip(self.sources, directories) {
            guard case .remote(let fetch, let address) = source else { continue }
            let names = try await fetch.removeDamaged(in: directory) { log.note($0) }
            guard !names.isEmpty else { continue }
            hasRemoved = true
            logger.warning(
                "a fetched part was damaged on this machine; its damaged files are removed and fetched again",
                metadata: [
                    "from": "\(address)", "folder": "\(directory)", "files": "\(names.joined(separator: ", "))",
                    "error": "\(error)",
                ]
            )
        }
        return hasRemoved
    }

    /// The folders that should be on this machine; fetches nothing.
    ///
    /// - Returns: The folders, in the order given; nil if some are at addresses.
    /// - Throws: ``CheckpointError`` for a missing folder.
    func localDirectories() throws -> [String]? {
        var directories: [String] = []
        for case .local(let name) in self.sources { directories.append(try ModelSettings.directory(name)) }
        return directories.count == self.sources.count ? directories : nil
    }
}
