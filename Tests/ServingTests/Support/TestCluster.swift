// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertPooling
import GatewayServing
import Metrics
import NIOCore
import RPCCore
import RPCTransport
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes

/// Runs a gateway for the miniature over some pools, gives a channel to it to the body and ends both.
func withGateway<Result>(
    _ pools: [PoolSpecification],
    modelDirectory: String = TestModel.miniature.directory,
    metrics: (any MetricsFactory)? = nil,
    configure: (inout GatewayConfiguration) -> Void = { _ in },
    _ body: (Gateway, RPCChannel) async throws -> Result
) async throws -> Result {
    var configuration = GatewayConfiguration(modelDirectory: modelDirectory, pools: pools)
    configuration.port = 0
    configuration.drainTimeout = .seconds(5)
    // Long enough for a loaded machine: tests of deadlines set their own.
    configuration.cluster.choice.encoder.deadline = .seconds(60)
    configuration.cluster.choice.decoder.deadline = .seconds(60)
    // Tests that count calls want no others; audits have tests of their own.
    configuration.cluster.choice.auditFraction = 0
    // Tests that lose hosts look at what is left of the answer; the default limit has tests of its own.
    configuration.limits.maxDroppedFraction = 1
    configure(&configuration)
    let gateway = try Gateway(
        configuration: configuration,
        logger: quietLogger,
        metrics: metrics ?? MetricsSystem.factory
    )
    let task = Task { try await gateway.run() }
    let outcome: Swift.Result<Result, any Error>
    do {
        let port = try await gateway.boundAddress().port
        try await gateway.waitUntilServing()
        outcome = .success(try await withChannel(port: port) { try await body(gateway, $0) })
    } catch {
        outcome = .failure(error)
    }
    task.cancel()
    _ = await task.result
    return try outcome.get()
}

/// Runs a channel to a port of this machine and gives it to the body.
func withChannel<Result>(
    port: Int,
    _ body: (RPCChannel) async throws -> Result
) async throws -> Result {
    let channel = RPCChannel(
        target: (host: "127.0.0.1", port: port),
        configuration: RPCChannelConfiguration(limits: .dataPlane, reconnect: .dataPlane),
        logger: quietLogger
    )
    let task = Task { try await channel.run() }
    let outcome: Swift.Result<Result, any Error>
    do {
        outcome = .success(try await body(channel))
    } catch {
        outcome = .failure(error)
    }
    task.cancel()
    _ = await task.result
    return try outcome.get()
}

/// Runs the connections to some pools and gives an executor over them to the body, once every expert is held.
func withRemoteExperts<Result>(
    _ pools: [PoolSpecification],
    of loaded: LoadedModel,
    deadline: Duration = .seconds(60),
    ownExperts: Bool = true,
    configure: (inout ExpertClusterConfiguration) -> Void = { _ in },
    _ body: (RemoteExperts, ExpertCluster) async throws -> Result
) async throws -> Result {
    var configuration = ExpertClusterConfiguration(pools: pools)
    configuration.choice.encoder.deadline = deadline
    configuration.choice.decoder.deadline = deadline
    configuration.choice.auditFraction = 0
    configure(&configuration)
    let cluster = ExpertCluster(
        configuration: configuration,
        model: loaded.checkpoint.configuration,
        fingerprint: loaded.checkpoint.fingerprint,
        placement: nil,
        checkpoint: ownExperts ? loaded.checkpoint : nil,
        logger: quietLogger
    )
    let experts = RemoteExperts(cluster: cluster, fingerprint: loaded.checkpoint.fingerprint)
    let task = Task { try await cluster.run() }
    await cluster.waitUntilComplete()
    let outcome: Swift.Result<Result, any Error>
    do {
        outcome = .success(try await body(experts, cluster))
    } catch {
        outcome = .failure(error)
    }
    task.cancel()
    _ = await task.result
    return try outcome.get()
}

extension RPCChannel {
    /// Makes a call with typed messages.
    func call<Request: ProtoMessage, Response: ProtoMessage>(
        _ method: MethodName,
        _ request: Request,
        as response: Response.Type,
        timeout: Duration = .seconds(120)
    ) async throws -> Response {
        let reply = try await self.unary(
            Method(service: method.service, name: method.name),
            Payload(bytes: request.serialized()),
            options: CallOptions(deadline: .now.advanced(by: timeout), waitForReady: true)
        )
        return try Response(serialized: Array(reply.message.readableBytesView))
    }

    /// Describes the cluster.
    func describeCluster() async throws -> ClusterDescription {
        try await self.call(GatewayMethods.describeCluster, DescribeClusterRequest(), as: ClusterDescription.self)
    }

    /// Generates.
    func generate(_ request: GenerateRequest, timeout: Duration = .seconds(120)) async throws -> GenerateResponse {
        try await self.call(GatewayMethods.generate, request, as: GenerateResponse.self, timeout: timeout)
    }
}

/// Polls until a condition holds.
///
/// - Returns: Whether it came to be so within the time.
func eventually(within time: Duration = .seconds(300), _ condition: () async throws -> Bool) async rethrows -> Bool {
    let deadline = ContinuousClock.now.advanced(by: time)
    while ContinuousClock.now < deadline {
        if try await condition() {
            return true
        }
        await Task.yield()
    }
    return try await condition()
}

/// Runs the body and returns the error that it throws.
func rpcError(_ body: () async throws -> Void) async -> RPCError? {
    do {
        try await body()
        return nil
    } catch {
        return error as? RPCError
    }
}
