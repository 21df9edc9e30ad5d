// SPDX-License-Identifier: Apache-2.0

import CertificateAuthority
import Foundation
import Logging
import NIOCore
import RPCCore
import RPCTransport
import Synchronization

/// A folder with an authority, a server's certificate and some clients', for one test.
final class TLSFixture: Sendable {
    let folder: String
    private let authority: CertificateAuthority

    static func with(_ body: (TLSFixture) async throws -> Void) async throws {
        let fixture = try TLSFixture()
        defer { try? FileManager.default.removeItem(atPath: fixture.folder) }
        try await body(fixture)
    }

    private init() throws {
        self.folder = FileManager.default.temporaryDirectory.appendingPathComponent("tls-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: self.folder, withIntermediateDirectories: true)
        self.authority = try CertificateAuthority()
        try self.authority.certificatePEM.write(toFile: self.path("ca"), atomically: true, encoding: .utf8)
        try self.issue("server", names: [.dns("localhost"), .address("127.0.0.1"), .uri("test:server")])
        try self.issue("client", names: [.dns("client.test"), .uri("test:client")])
    }

    func path(_ name: String) -> String { "\(self.folder)/\(name).pem" }

    /// Signs a certificate and puts it in place, the key first.
    func issue(
        _ name: String,
        names: [LeafCertificate.SubjectName],
        lifetime: TimeInterval = 3_600,
        by authority: CertificateAuthority? = nil
    ) throws {
        let leaf = LeafCertificate(name: name, subjectAlternativeNames: names, lifetime: lifetime)
        let issued = try (authority ?? self.authority).issue(leaf)
        try issued.keyPEM.write(toFile: self.path("\(name)-key"), atomically: true, encoding: .utf8)
        try issued.certificatePEM.write(toFile: self.path(name), atomically: true, encoding: .utf8)
    }

    func server(
        _ name: String = "server",
        mutual: Bool = false,
        allowed: [String] = [],
        reload: Duration? = nil,
        logger: Logger = quietLogger
    ) -> ServerSecurity {
        let options = ServerTLSOptions(
            certificateFile: self.path(name),
            keyFile: self.path("\(name)-key"),
            clientAuthorityFile: mutual ? self.path("ca") : nil,
            allowedClients: allowed,
            reloadInterval: reload
        )
        return .tls(ServerTLS(options, logger: logger))
    }

    func client(
        _ name: String? = nil,
        authority: String = "ca",
        serverName: String? = nil,
        timing: ConnectionTiming = .defaults
    ) -> RPCChannelConfiguration {
        let options = ClientTLSOptions(
            authorityFile: self.path(authority),
            certificateFile: name.map { self.path($0) },
            keyFile: name.map { self.path("\($0)-key") },
            serverName: serverName,
            reloadInterval: nil
        )
        return .quick {
            $0.security = .tls(ClientTLS(options, logger: quietLogger))
            $0.timing = timing
        }
    }
}

/// Remembers what is logged at warning and above, and lets a test wait for a line.
final class LogCapture: Sendable {
    private struct State {
        var lines: [String] = []
        var waiters: [(part: String, continuation: CheckedContinuation<String, Never>)] = []
    }

    private let state = Mutex(State())

    var logger: Logger { Logger(label: "test") { _ in Handler(capture: self) } }
    var lines: [String] { self.state.withLock { $0.lines } }

    /// The first line with a part, as soon as it is there.
    func line(with part: String) async -> String {
        await withCheckedContinuation { continuation in
            let found = self.state.withLock { state -> String? in
                if let line = state.lines.first(where: { $0.contains(part) }) { return line }
                state.waiters.append((part, continuation))
                return nil
            }
            if let found { continuation.resume(returning: found) }
        }
    }

    private func add(_ line: String) {
        let due = self.state.withLock { state in
            state.lines.append(line)
            let due = state.waiters.filter { line.contains($0.part) }
            state.waiters.removeAll { line.contains($0.part) }
            return due
        }
        for waiter in due { waiter.continuation.resume(returning: line) }
    }

    private struct Handler: LogHandler {
        let capture: LogCapture
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.notice

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { self.metadata[key] }
            set { self.metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            let metadata = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
            self.capture.add("\(event.level) \(event.message) \(metadata.joined(separator: " "))")
        }
    }
}
