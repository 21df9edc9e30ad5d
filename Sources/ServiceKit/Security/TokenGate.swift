// SPDX-License-Identifier: Apache-2.0

public import Logging
public import RPCCore
public import RPCTransport
internal import SwitchyardProtos

/// Accepts only calls with a known token; rereads the token file when it changes.
///
/// A file that holds tokens themselves must not be readable by every user; one with only hashes may be.
public final class TokenGate: Sendable {
    private let files: WatchedFiles<BearerTokens>
    private let coversHealth: Bool
    private let logger: Logger

    /// Names the file; nothing is read yet.
    ///
    /// - Parameters:
    ///   - file: Path of the file with the tokens.
    ///   - coversHealth: Whether health checks need a token too; otherwise probes work without one.
    ///   - interval: How often to check the file for changes; nil reads it once.
    ///   - logger: Logs reloads and their failures, and callers' names below `info`.
    public init(file: String, coversHealth: Bool = false, interval: Duration? = .seconds(10), logger: Logger) {
        self.coversHealth = coversHealth
        self.logger = logger
        self.files = WatchedFiles(
            "the list of tokens",
            paths: [file],
            interval: interval,
            logger: logger
        ) { _ in
            let contents = try SecretFile.read(file)
            let tokens = try BearerTokens(parsing: contents.text, file: file)
            guard !(tokens.holdsPlainTokens && contents.isReadableByAll) else { throw SecretFile.readableByAll(file) }
            return tokens
        }
    }

    /// Reads the file, so that mistakes show before anything else starts.
    ///
    /// - Throws: ``Settings/Failure`` if the file cannot be used.
    public func load() throws { try self.files.load() }

    /// Watches the file while a body runs.
    ///
    /// - Parameter body: Code that needs the gate.
    /// - Returns: The body's result.
    /// - Throws: What reading the file throws, and what the body throws.
    public func whileWatched<Result>(_ body: () async throws -> Result) async throws -> Result {
        try self.files.begin()
        defer { self.files.end() }
        return try await body()
    }

    /// Decides whether a call may be made; for ``RPCTransport/RPCServerConfiguration/authorize``.
    ///
    /// - Parameter context: The call.
    /// - Returns: The error that refuses the call, or nil.
    public func check(_ context: ServerContext) -> RPCError? {
        if context.method.service == HealthService.name, !self.coversHealth { return nil }
        guard let tokens = self.files.current else {
            return RPCError(.unauthenticated, "this server has not read its tokens yet; try again")
        }
        switch tokens.holder(of: context.metadata[text: "authorization"]) {
        case .success(let name):
            context.identify(as: name)
            self.logger.debug("a call", metadata: ["caller": "\(name)", "method": "\(context.method)"])
            return nil
        case .failure(let refusal):
            self.logger.debug(
                "a call was refused",
                metadata: ["peer": "\(context.peer)", "method": "\(context.method)", "reason": "\(refusal)"]
            )
            return RPCError(.unauthenticated, refusal.message)
        }
    }
}
