// SPDX-License-Identifier: Apache-2.0

import CertificateAuthority
import Foundation
import PeerTools
import Subprocess
import SystemPackage

@testable import WeightFetching

/// A folder for one test, and the `switchyard` executable with its caches below it.
final class Workplace: Sendable {
    /// What a program printed and how it ended.
    struct Output: Sendable {
        var text: String
        var errors: String
        /// The exit status; -1 where a signal ended it.
        var status: Int32
    }

    let path: String

    static func with(_ body: (Workplace) async throws -> Void) async throws {
        let place = try Workplace()
        defer { try? FileManager.default.removeItem(atPath: place.path) }
        try await body(place)
    }

    private init() throws {
        self.path = FileManager.default.temporaryDirectory.appendingPathComponent("fetch-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: self.path, withIntermediateDirectories: true)
    }

    var hubCache: String { "\(self.path)/home/hub" }

    static let executable = Peers.built("switchyard")

    static let miniature = "\(Peers.root)/deploy/models/switch-mini"

    /// The environment of a program: its caches are here, and nothing of the tests' own environment names others.
    func environment(_ more: [String: String]) -> Subprocess.Environment {
        var values: [Subprocess.Environment.Key: String?] = [
            "HF_HOME": "\(self.path)/home", "XDG_CACHE_HOME": "\(self.path)/cache", "HF_TOKEN": nil, "HF_ENDPOINT": nil,
            "HF_HUB_CACHE": nil, "SSL_CERT_FILE": nil, "http_proxy": nil, "https_proxy": nil, "HTTPS_PROXY": nil,
            "all_proxy": nil, "ALL_PROXY": nil, "no_proxy": nil, "NO_PROXY": nil,
        ]
        for (name, value) in more { values[Subprocess.Environment.Key(stringLiteral: name)] = value }
        return .inherit.updating(values)
    }

    /// Runs `switchyard` to its end.
    func switchyard(_ arguments: [String], environment: [String: String] = [:]) async throws -> Output {
        let result = try await Subprocess.run(
            .path(FilePath(Self.executable)),
            arguments: Arguments(arguments),
            environment: self.environment(environment),
            output: .string(limit: 1 << 22),
            error: .string(limit: 1 << 22)
        )
        var status: Int32 = -1
        if case .exited(let code) = result.terminationStatus { status = code }
        return Output(text: result.standardOutput, errors: result.standardError, status: status)
    }

    /// Runs `switchyard` until a line appears in its log, and then ends it with SIGTERM.
    ///
    /// - Returns: Everything that it logged, and how it ended.
    func serve(
        _ arguments: [String],
        environment: [String: String] = [:],
        until text: String,
        then body: (_ log: String) async throws -> Void = { _ in }
    ) async throws -> (log: String, status: TerminationStatus) {
        let result = try await Subprocess.run(
            .path(FilePath(Self.executable)),
            arguments: Arguments(arguments),
            environment: self.environment(environment),
            input: .none,
            output: .discarded,
            error: .sequence
        ) { execution in
            var log = ""
            var isTold = false
            for try await line in execution.standardError.strings() {
                log += line + "\n"
                if !isTold, line.contains(text) {
                    isTold = true
                    try await body(log)
                    try execution.send(signal: .terminate)
                }
            }
            return log
        }
        return (result.closureResult, result.terminationStatus)
    }

    /// Runs a command, and tells it to stop once a file has grown.
    ///
    /// - Parameters:
    ///   - arguments: The command's arguments.
    ///   - file: The file to watch.
    ///   - byteCount: How large it has to be.
    /// - Returns: What the command wrote to standard error, and how it ended.
    /// - Throws: Whatever keeps the command from being run.
    func serve(
        _ arguments: [String],
        until file: String,
        hasBytes byteCount: Int
    ) async throws -> (log: String, status: TerminationStatus) {
        let result = try await Subprocess.run(
            .path(FilePath(Self.executable)),
            arguments: Arguments(arguments),
            environment: self.environment([:]),
            input: .none,
            output: .discarded,
            error: .sequence
        ) { execution in
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    while Files.byteCount(file) ?? 0 < byteCount { try await Task.sleep(for: .milliseconds(10)) }
                    try execution.send(signal: .terminate)
                }
                var log = ""
                for try await line in execution.standardError.strings() { log += line + "\n" }
                group.cancelAll()
                return log
            }
        }
        return (result.closureResult, result.terminationStatus)
    }

    /// A certificate for loopback: its chain, its key, and the authority to trust.
    func certificate() throws -> (chain: String, key: String, authority: String) {
        let folder = CertificateFolder(path: "\(self.path)/certs")
        let leaf = LeafCertificate(
            name: "server",
            subjectAlternativeNames: [.address("127.0.0.1")],
            isServer: true,
            isClient: false,
            lifetime: 3600
        )
        let entries = try folder.make([leaf], replacing: false)
        return (entries[1].certificate, entries[1].key, entries[0].certificate)
    }
}
