// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import RPCCore
import RPCTransport
import ServiceKit
import Synchronization
import Testing

private let one = "0123456789abcdef0123456789abcdef"
private let two = "fedcba9876543210fedcba9876543210"
/// What `printf %s fedcba9876543210fedcba9876543210 | sha256sum` prints.
private let sha256OfTwo = "4ba68aa8767bde72e8c798ee82d1275291cea73e72ad74d35ecf48e41386eb82"

@Suite("Bearer tokens")
struct BearerTokensTests {
    @Test("are found by their text, in either form of the file")
    func found() throws {
        let text = "# people\n\n  alice:\(one)  \r\nbob.1:sha256:\(sha256OfTwo.uppercased())\n# alice:\(two)\n"
        let tokens = try BearerTokens(parsing: text, file: "tokens")
        #expect(tokens.count == 2)
        #expect(tokens.holdsPlainTokens)
        #expect(tokens.holder(of: ["Bearer \(one)"]) == .success("alice"))
        #expect(tokens.holder(of: ["bearer \(two)"]) == .success("bob.1"))
        #expect(tokens.holder(of: ["Bearer \(one.dropLast())"]) == .failure(.unknown))
        #expect(tokens.holder(of: ["Bearer \(one)0"]) == .failure(.unknown))
    }

    @Test(
        "what is not one token is not let in",
        arguments: [
            ([], BearerTokens.Refusal.missing), ([""], .malformed), (["Bearer"], .malformed), (["Bearer "], .malformed),
            (["Basic \(one)"], .malformed), ([one], .malformed), (["Bearer \(one)", "Bearer \(one)"], .malformed),
            (["Bearer " + String(repeating: "a", count: 5_000)], .malformed), (["Bearer nobodys"], .unknown),
        ]
    )
    func refused(authorization: [String], refusal: BearerTokens.Refusal) throws {
        let tokens = try BearerTokens(parsing: "a:\(one)", file: "tokens")
        #expect(tokens.holder(of: authorization) == .failure(refusal))
        #expect(!refusal.message.contains(one))
    }

    @Test("a name may have two tokens while one replaces the other")
    func rotation() throws {
        let tokens = try BearerTokens(parsing: "a:\(one)\na:\(two)", file: "tokens")
        #expect(tokens.holder(of: ["Bearer \(one)"]) == .success("a"))
        #expect(tokens.holder(of: ["Bearer \(two)"]) == .success("a"))
    }

    @Test(
        "a line that cannot be used is named by its number, and never shown",
        arguments: [
            ("a:\(one)\n\(two)", "tokens:2: no colon"), ("a b:\(one)", "tokens:1: the name"),
            (":\(one)", "tokens:1: the name"), ("a:short", "has 5 bytes"), ("a:", "has 0 bytes"),
            ("a:\(one) \(two)", "letters, digits and"), ("a:sha256:12", "64 hexadecimal digits"),
            ("a:sha256:" + String(repeating: "g", count: 64), "64 hexadecimal digits"),
            ("a:sha256:" + String(repeating: "+1", count: 32), "64 hexadecimal digits"),
            ("a:\(one)\nb:\(one)", "tokens:2: the token of b appears twice in the file"),
            ("# nothing\n", "holds no token"), ("", "holds no token"),
            ("a:" + String(repeating: "a", count: 4_097), "has 4097 bytes"),
        ]
    )
    func unusable(text: String, part: String) {
        let failure = #expect(throws: Settings.Failure.self) { try BearerTokens(parsing: text, file: "tokens") }
        #expect(failure?.description.contains(part) == true, "\(String(describing: failure))")
        #expect(failure?.description.contains(one) == false)
        #expect(failure?.description.contains(two) == false)
    }

    @Test("too many tokens are refused")
    func tooMany() {
        let text = (0...BearerTokens.maximumCount).map { "a:\(one)\($0)" }.joined(separator: "\n")
        let failure = #expect(throws: Settings.Failure.self) { try BearerTokens(parsing: text, file: "tokens") }
        #expect(failure?.description.contains("tokens:1001: more than 1000 tokens") == true)
    }
}

@Suite("A gate that requires tokens")
struct TokenGateTests {
    private static let method = Method(service: "test.Service", name: "Call")

    private static func withFile(_ text: String, mode: Int = 0o600, _ body: (String) async throws -> Void) async throws
    {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("tokens-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Self.write(text, to: path, mode: mode)
        try await body(path)
    }

    private static func write(_ text: String, to path: String, mode: Int = 0o600) throws {
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
    }

    /// Runs a server behind a gate and makes calls with tokens, nil for none.
    private static func withCalls(
        _ gate: TokenGate,
        _ body: (@escaping (_ token: String?, _ method: Method) async throws -> RPCError?) async throws -> Void
    ) async throws {
        let health = HealthRegistry(services: [])
        let methods = [ServiceMethod.unary(Self.method) { message, _ in Payload(message) }]
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let server = RPCServer(
            configuration: RPCServerConfiguration(authorize: { gate.check($0) }),
            methods: methods + HealthService(registry: health).methods,
            logger: logger
        )
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await server.run() }
            let port = try await server.boundAddress().port
            let channel = RPCChannel(target: ("127.0.0.1", port), logger: logger)
            group.addTask { try await channel.run() }
            try await body { token, method in
                var metadata = Metadata()
                if let token { try metadata.add("Bearer \(token)", forKey: "authorization") }
                do {
                    _ = try await channel.unary(
                        method,
                        Payload(bytes: []),
                        options: CallOptions(metadata: metadata, waitForReady: true)
                    )
                    return nil
                } catch let error as RPCError {
                    return error
                }
            }
            channel.shutdown()
            server.beginGracefulShutdown()
            try await group.waitForAll()
        }
    }

    @Test("accepts only known tokens, for unknown methods too; probes need none unless configured")
    func calls() async throws {
        try await Self.withFile("a:\(one)") { file in
            let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            let check = Method(service: HealthService.name, name: "Check")
            try await Self.withCalls(try Self.loaded(TokenGate(file: file, interval: nil, logger: logger))) { call in
                #expect(try await call(one, Self.method) == nil)
                let missing = try await call(nil, Self.method)
                #expect(missing?.code == .unauthenticated)
                #expect(missing?.message.contains("authorization: Bearer TOKEN") == true)
                let wrong = try await call(two, Self.method)
                #expect(wrong?.code == .unauthenticated)
                #expect(wrong?.message.contains(two) == false)
                let unknown = Method(service: "test.Service", name: "NoSuchMethod")
                #expect(try await call(nil, unknown)?.code == .unauthenticated)
                #expect(try await call(one, unknown)?.code == .unimplemented)
                #expect(try await call(nil, check) == nil)
            }
            let strict = TokenGate(file: file, coversHealth: true, interval: nil, logger: logger)
            try await Self.withCalls(try Self.loaded(strict)) { call async throws in
                #expect(try await call(nil, check)?.code == .unauthenticated)
                #expect(try await call(one, check) == nil)
            }
        }
    }

    @Test("rereads its file when it changes, and keeps the old tokens if the file is broken")
    func reload() async throws {
        try await Self.withFile("a:\(one)") { file in
            let log = LineWaiter()
            let gate = TokenGate(file: file, interval: .milliseconds(10), logger: log.logger)
            try await gate.whileWatched {
                try await Self.withCalls(gate) { call in
                    #expect(try await call(one, Self.method) == nil)
                    try Self.write("a:\(two)", to: file)
                    await log.wait(for: "was reloaded")
                    #expect(try await call(one, Self.method)?.code == .unauthenticated)
                    #expect(try await call(two, Self.method) == nil)
                    try Self.write("broken", to: file)
                    await log.wait(for: "the old one stays in use")
                    #expect(try await call(two, Self.method) == nil)
                }
            }
        }
    }

    @Test("refuses a file with tokens that every user can read, and accepts one with only hashes")
    func permissions() async throws {
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        try await Self.withFile("a:\(one)", mode: 0o644) { file in
            let failure = #expect(throws: Settings.Failure.self) { try TokenGate(file: file, logger: logger).load() }
            #expect(failure?.description.contains("chmod o-r \(file)") == true)
            #expect(throws: Settings.Failure.self) { try SecretFile.readToken(file) }
        }
        try await Self.withFile("a:sha256:\(sha256OfTwo)", mode: 0o644) { file in
            try TokenGate(file: file, logger: logger).load()
        }
        try await Self.withFile("a:\(one)", mode: 0o640) { file in try TokenGate(file: file, logger: logger).load() }
        #expect(throws: Settings.Failure.self) { try TokenGate(file: "/nowhere", logger: logger).load() }
        #expect(throws: Settings.Failure.self) { try TokenGate(file: "/tmp", logger: logger).load() }
    }

    @Test("a client's file holds one token")
    func clientFile() async throws {
        try await Self.withFile("  \(one)\n") { file throws in #expect(try SecretFile.readToken(file) == one) }
        for text in ["", "\n", "\(one) \(two)", "tök", String(repeating: "a", count: 5_000)] {
            try await Self.withFile(text) { file in
                #expect(throws: Settings.Failure.self) { try SecretFile.readToken(file) }
            }
        }
    }

    private static func loaded(_ gate: TokenGate) throws -> TokenGate {
        try gate.load()
        return gate
    }
}

/// Lets a test wait for a line of the log.
final class LineWaiter: Sendable {
    private let state = Mutex<(lines: [String], waiters: [(String, CheckedContinuation<Void, Never>)])>(([], []))

    var logger: Logger { Logger(label: "test") { _ in Handler(waiter: self) } }

    func wait(for part: String) async {
        await withCheckedContinuation { continuation in
            let isThere = self.state.withLock { state in
                if state.lines.contains(where: { $0.contains(part) }) { return true }
                state.waiters.append((part, continuation))
                return false
            }
            if isThere { continuation.resume() }
        }
    }

    private func add(_ line: String) {
        let due = self.state.withLock { state in
            state.lines.append(line)
            let due = state.waiters.filter { line.contains($0.0) }
            state.waiters.removeAll { line.contains($0.0) }
            return due
        }
        for waiter in due { waiter.1.resume() }
    }

    private struct Handler: LogHandler {
        let waiter: LineWaiter
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.notice

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { self.metadata[key] }
            set { self.metadata[key] = newValue }
        }

        func log(event: LogEvent) { self.waiter.add("\(event.message)") }
    }
}
