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
    /// Whether health checks need a token too.
    package let coversHealth: Bool
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
        let holder = self.holder(
            of: context.metadata[text: "authorization"],
            peer: context.peer,
            what: "\(context.method)"
        )
        switch holder {
        case .success(let name):
            context.identify(as: name)
            return nil
        case .failure(let error): return error
        }
    }

    /// Looks up who presents a token.
    ///
    /// - Parameters:
    ///   - authorization: The values of the field `authorization`.
    ///   - peer: The caller's address, for the log.
    ///   - what: What is called, for the log.
    /// - Returns: The token's name, or the error that refuses the call.
    package func holder(of authorization: [String], peer: String, what: String) -> Result<String, RPCError> {
        guard let tokens = self.files.current else {
            return .failure(RPCError(.unauthenticated, "this server has not read its tokens yet; try again"))
        }
        switch tokens.holder(of: authorization) {
        case .success(let name):
            self.logger.debug("a call", metadata: ["caller": "\(name)", "method": "\(what)"])
            return .success(name)
        case .failure(let refusal):
            self.logger.debug(
                "a call was refused",
                metadata: ["peer": "\(peer)", "method": "\(what)", "reason": "\(refusal)"]
            )
            return .failure(RPCError(.unauthenticated, refusal.message))
        }
    }
}
