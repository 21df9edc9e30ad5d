// SPDX-License-Identifier: Apache-2.0

public import Logging
internal import NIOCore
internal import RPCCore
internal import RPCTransport
public import SwitchyardProtos

/// A client of one gateway.
///
/// The client works while ``run()`` or ``with(endpoint:configuration:logger:_:)`` runs:
///
/// ```swift
/// import SwitchyardClient
///
/// let answer = try await GatewayClient.with(endpoint: .local) { gateway in
///     try await gateway.generate(
///         GenerateRequest(
///             input: .text("The <extra_id_0> walks in <extra_id_1> park."),
///             parameters: GenerationParameters(maxNewTokens: 20)
///         ),
///         timeout: .seconds(10)
///     )
/// }
/// print(answer.generations.first?.text ?? "")
/// ```
///
/// Tokens can also be read as they come:
///
/// ```swift
/// for try await event in try await gateway.generateStream(request) {
///     switch event {
///     case .token(let token): print(token.text, terminator: "")
///     case .response(let response): print("\n", response.usage?.outputTokens ?? 0, "tokens")
///     }
/// }
/// ```
///
/// Every call throws ``GatewayError``. Cancelling the task that makes a call cancels the call, which frees its place
/// in the gateway.
public final class GatewayClient: Sendable {
    /// Where the gateway listens.
    public let endpoint: Endpoint

    private let configuration: GatewayClientConfiguration
    private let channel: RPCChannel
    private let gate: ConnectionGate

    /// Creates a client; ``run()`` connects it.
    ///
    /// - Parameters:
    ///   - endpoint: Where the gateway listens.
    ///   - configuration: How to reach it and what to wait for.
    ///   - logger: Gets debug messages about connections.
    public init(
        endpoint: Endpoint,
        configuration: GatewayClientConfiguration = .defaults,
        logger: Logger = Logger(label: "switchyard.client")
    ) {
        let gate = ConnectionGate()
        self.endpoint = endpoint
        self.configuration = configuration
        self.gate = gate
        self.channel = RPCChannel(
            target: (endpoint.host, endpoint.port),
            configuration: configuration.channel(logger: logger),
            logger: logger,
            onStateChange: { gate.changed(to: $0) }
        )
    }

    /// Connects and keeps connected until ``shutdown()``; cancelling the task ends all calls at once.
    ///
    /// - Throws: ``GatewayError`` if the configuration is out of range, a certificate cannot be used, the connection
    ///   would be plaintext to another machine without a setting that allows it, or the client ran before.
    public func run() async throws(GatewayError) {
        try self.configuration.security.check(self.endpoint)
        do {
            try await self.channel.run()
        } catch {
            throw GatewayError(wrapping: error)
        }
    }

    /// Accepts no new calls and lets calls in flight finish; then ``run()`` returns.
    public func shutdown() { self.channel.shutdown() }

    /// Connects while a closure runs.
    ///
    /// - Parameters:
    ///   - endpoint: Where the gateway listens.
    ///   - configuration: How to reach it and what to wait for.
    ///   - logger: Gets debug messages about connections.
    ///   - body: Makes calls.
    /// - Returns: The closure's result.
    /// - Throws: What the closure throws, or ``GatewayError`` if the configuration is out of range.
    public static func with<Result>(
        endpoint: Endpoint,
        configuration: GatewayClientConfiguration = .defaults,
        logger: Logger = Logger(label: "switchyard.client"),
        _ body: (GatewayClient) async throws -> Result
    ) async throws -> Result {
        // Check before the body waits for a connection that will never be made.
        try configuration.security.check(endpoint)
        if case .tls(let options) = configuration.security {
            do { try ClientTLS(options, logger: logger).load() } catch { throw GatewayError(wrapping: error) }
        }
        let client = GatewayClient(endpoint: endpoint, configuration: configuration, logger: logger)
        return try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await client.run() }
            let outcome: Swift.Result<Result, any Error>
            do {
                outcome = .success(try await body(client))
            } catch {
                outcome = .failure(error)
            }
            client.shutdown()
            try await tasks.waitForAll()
            return try outcome.get()
        }
    }
}

// MARK: - Calls

extension GatewayClient {
    /// Generates text and returns it whole.
    ///
    /// - Parameters:
    ///   - request: The input and how to continue from it.
    ///   - timeout: How long the call may take; nil uses the configuration's.
    /// - Returns: The generated sequences, best first, and what they cost.
    /// - Throws: ``GatewayError``.
    public func generate(
        _ request: GenerateRequest,
        timeout: Duration? = nil
    ) async throws(GatewayError) -> GenerateResponse {
        try await self.call(GatewayMethods.generate, request, timeout)
    }

    /// Generates text and returns tokens as they arrive, then the whole response.
    ///
    /// - Parameters:
    ///   - request: The input and how to continue from it.
    ///   - timeout: How long the call may take; nil uses the configuration's.
    /// - Returns: The events, to be read once; dropping them cancels the call.
    /// - Throws: ``GatewayError``. Errors of the call itself are thrown where the events are read.
    public func generateStream(
        _ request: GenerateRequest,
        timeout: Duration? = nil
    ) async throws(GatewayError) -> GenerateEvents {
        let options = try await self.options(timeout)
        let payload = Payload(bytes: request.serialized())
        return GenerateEvents(
            responses: self.channel.serverStreaming(Method(GatewayMethods.generateStream), payload, options: options)
        )
    }

    /// Returns the encoder's hidden states of an input, or of several.
    ///
    /// - Parameters:
    ///   - request: The input, or several as `inputs`, and how to pool.
    ///   - timeout: How long the call may take; nil uses the configuration's.
    /// - Returns: The hidden states, [tokens, d_model] or [1, d_model], float32; of several inputs in `results`, each with a
    ///   status if it has no answer.
    /// - Throws: ``GatewayError``.
    public func encode(_ request: EncodeRequest, timeout: Duration? = nil) async throws(GatewayError) -> EncodeResponse
    {
        try await self.call(GatewayMethods.encode, request, timeout)
    }

    /// Returns the log-probabilities of a given target, or of several.
    ///
    /// - Parameters:
    ///   - request: The input and the target, or several as `inputs`.
    ///   - timeout: How long the call may take; nil uses the configuration's.
    /// - Returns: One log-probability per token of the target, and the loss; of several inputs in `results`, each with a
    ///   status if it has no answer.
    /// - Throws: ``GatewayError``.
    public func score(_ request: ScoreRequest, timeout: Duration? = nil) async throws(GatewayError) -> ScoreResponse {
        try await self.call(GatewayMethods.score, request, timeout)
    }

    /// Describes the served model and its limits.
    ///
    /// - Parameter timeout: How long the call may take; nil uses the configuration's.
    /// - Returns: The description.
    /// - Throws: ``GatewayError``.
    public func describeModel(timeout: Duration? = nil) async throws(GatewayError) -> ModelDescription {
        try await self.call(GatewayMethods.describeModel, DescribeModelRequest(), timeout)
    }

    /// Changes the checkpoint that is served, step by step, or asks how far a change is.
    ///
    /// - Parameters:
    ///   - request: The step; none only asks.
    ///   - timeout: How long the call may take; nil uses the configuration's.
    /// - Returns: How far the rollout is after the step.
    /// - Throws: ``GatewayError``.
    public func rollout(
        _ request: RolloutRequest = RolloutRequest(),
        timeout: Duration? = nil
    ) async throws(GatewayError) -> RolloutDescription {
        try await self.call(GatewayMethods.rollout, request, timeout)
    }

    /// Describes the cluster as the gateway sees it.
    ///
    /// - Parameter timeout: How long the call may take; nil uses the configuration's.
    /// - Returns: The description.
    /// - Throws: ``GatewayError``.
    public func describeCluster(timeout: Duration? = nil) async throws(GatewayError) -> ClusterDescription {
        try await self.call(GatewayMethods.describeCluster, DescribeClusterRequest(), timeout)
    }

    /// Asks the standard health service whether a service takes calls.
    ///
    /// Expert hosts answer this call like gateways, so the endpoint may be an expert host's.
    ///
    /// - Parameters:
    ///   - service: The service's full name, such as `switchyard.v1.Gateway`; empty means the server as a whole.
    ///   - timeout: How long the call may take; nil uses the configuration's.
    /// - Returns: The service's status.
    /// - Throws: ``GatewayError``; its code is `NOT_FOUND` if the server has no such service.
    public func checkHealth(
        of service: String = "",
        timeout: Duration? = nil
    ) async throws(GatewayError) -> HealthCheckResponse.ServingStatus {
        let request = HealthCheckRequest(service: service)
        let response: HealthCheckResponse = try await self.call(HealthMethods.check, request, timeout)
        return response.status
    }

    /// Makes a call with one message each way.
    private func call<Request: ProtoMessage, Response: ProtoMessage>(
        _ method: MethodName,
        _ request: Request,
        _ timeout: Duration?
    ) async throws(GatewayError) -> Response {
        do {
            let options = try await self.options(timeout)
            let payload = Payload(bytes: request.serialized())
            let reply = try await self.channel.unary(Method(method), payload, options: options)
            return try Response(message: reply.message)
        } catch {
            throw GatewayError(wrapping: error)
        }
    }

    /// The options of a call that starts now, once it is known whether the gateway can be reached.
    private func options(_ timeout: Duration?) async throws(GatewayError) -> CallOptions {
        let now = ContinuousClock.now
        let deadline = (timeout ?? self.configuration.timeout).map { now.advanced(by: $0) }
        let connected = now.advanced(by: self.configuration.connectTimeout)
        await self.gate.settled(until: deadline.map { min($0, connected) } ?? connected)
        if let deadline, deadline <= .now {
            throw GatewayError(.deadlineExceeded, "no connection to \(self.endpoint) before the deadline")
        }
        return CallOptions(deadline: deadline, metadata: try self.configuration.callMetadata)
    }
}

extension Method {
    /// The transport's form of a method's name.
    init(_ name: MethodName) {
        self.init(service: name.service, name: name.name)
    }
}

extension ProtoMessage {
    /// Reads a received message, whose length the transport has checked.
    init(message: ByteBuffer) throws(ProtoError) {
        let limits = ProtoLimits(maxMessageBytes: .max)
        let result = message.withUnsafeReadableBytes { bytes in
            Result<Self, ProtoError> { () throws(ProtoError) in try Self(serialized: bytes, limits: limits) }
        }
        self = try result.get()
    }
}
