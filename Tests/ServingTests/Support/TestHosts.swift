// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertPooling
import ExpertServing
import Metrics
import NIOCore
import RPCCore
import RPCTransport
import SwitchyardProtos
import SwitchyardTypes

/// An expert host that runs in this process until it is stopped.
final class RunningHost: Sendable {
    let host: ExpertHost
    let port: Int
    private let task: Task<Void, any Error>

    /// Loads a shard and serves it on a free port.
    static func start(
        _ shard: String,
        metrics: (any MetricsFactory)? = nil,
        configure: (inout ExpertHostConfiguration) -> Void = { _ in }
    ) async throws -> RunningHost {
        try await Self.start([shard], metrics: metrics, configure: configure)
    }

    /// Loads some shards and serves them on a free port.
    static func start(
        _ shards: [String],
        metrics: (any MetricsFactory)? = nil,
        configure: (inout ExpertHostConfiguration) -> Void = { _ in }
    ) async throws -> RunningHost {
        var configuration = ExpertHostConfiguration(shardDirectories: shards)
        configuration.port = 0
        configuration.drainTimeout = .seconds(5)
        configure(&configuration)
        let host = try ExpertHost(
            configuration: configuration,
            logger: quietLogger,
            metrics: metrics ?? MetricsSystem.factory
        )
        let task = Task { try await host.run() }
        return RunningHost(host: host, port: try await host.boundAddress().port, task: task)
    }

    private init(host: ExpertHost, port: Int, task: Task<Void, any Error>) {
        self.host = host
        self.port = port
        self.task = task
    }

    /// Ends the host at once, as a crash would.
    func kill() async {
        self.task.cancel()
        _ = await self.task.result
    }

    /// Lets the host finish its calls and end.
    func drain() async throws {
        self.host.beginDraining()
        try await self.task.value
    }
}

/// Runs hosts for a model cut into some pools, gives their pools to the body and ends them.
func withHosts<Result>(
    _ model: TestModel,
    pools: Int,
    replicas: Int = 1,
    configure: (inout ExpertHostConfiguration) -> Void = { _ in },
    _ body: ([RunningHost], [PoolSpecification]) async throws -> Result
) async throws -> Result {
    let folder = try ShardCache.folder(of: model, pools: pools)
    var hosts: [RunningHost] = []
    var specifications: [PoolSpecification] = []
    for pool in 0..<pools {
        var targets: [PoolTarget] = []
        for _ in 0..<replicas {
            let host = try await RunningHost.start("\(folder)/pool-\(pool)", configure: configure)
            hosts.append(host)
            targets.append(.address(host: "127.0.0.1", port: host.port))
        }
        specifications.append(PoolSpecification(name: "pool-\(pool)", targets: targets))
    }
    let outcome: Swift.Result<Result, any Error>
    do {
        outcome = .success(try await body(hosts, specifications))
    } catch {
        outcome = .failure(error)
    }
    for host in hosts {
        await host.kill()
    }
    return try outcome.get()
}

/// How a faulty host treats a `Forward` call.
enum Illness: Sendable, CaseIterable {
    /// Never answers.
    case stalls
    /// Answers with a value that is not a number in the last row.
    case notFinite
    /// Answers with finite values that no expert computes.
    case huge
    /// Answers with one row too few.
    case wrongShape
    /// Answers with bytes that are not a message.
    case garbage
    /// Sheds every call.
    case overloaded
    /// Reports that it holds nothing.
    case refuses
    /// Is of a version that knows no `Backward`.
    case knowsNoGradients
}

/// Runs a server that describes itself like a healthy host and answers every other call wrongly.
func withIllHost<Result>(
    describing description: HostDescription,
    _ illness: Illness,
    timing: ConnectionTiming = .dataPlane,
    _ body: (Int) async throws -> Result
) async throws -> Result {
    // A process of its own: with the true host's identifier it would be a second address of that host.
    var own = description
    own.instanceID = "ill"
    let described = own.serialized()
    let server = RPCServer(
        configuration: RPCServerConfiguration(limits: .dataPlane, timing: timing, drainGrace: .zero),
        methods: [
            .unaryOnEventLoop(.init(service: ExpertHostMethods.service, name: "Describe")) { _, _, responder in
                responder.finish(.success(Payload(bytes: described)))
            }
        ]
            // A `Backward` has the fields of a `Forward`, under the same numbers.
            + (illness == .knowsNoGradients ? ["Forward"] : ["Forward", "Backward"])
            .map { name in
                .unaryOnEventLoop(.init(service: ExpertHostMethods.service, name: name)) { message, _, responder in
                    guard let request = try? ForwardRequest(serialized: Array(message.readableBytesView)) else {
                        return responder.finish(.failure(RPCError(.internal, "the test sent no ForwardRequest")))
                    }
                    if let answer = illness.answer(to: request) {
                        responder.finish(answer)
                    }
                }
            },
        logger: quietLogger
    )
    let task = Task { try await server.run() }
    let outcome: Swift.Result<Result, any Error>
    do {
        outcome = .success(try await body(try await server.boundAddress().port))
    } catch {
        outcome = .failure(error)
    }
    task.cancel()
    _ = await task.result
    return try outcome.get()
}

/// Runs a server that passes every call on to a healthy host, and changes one bit of some answers.
///
/// - Parameters:
///   - port: The healthy host's port.
///   - instance: The process that it claims to be.
///   - isWrong: Called for each answer: whether to flip the lowest bit of its first value's mantissa.
///   - body: Gets the server's port.
/// - Returns: What the body returns.
/// - Throws: What the body throws, and what prevents the server from listening.
func withLyingHost<Result>(
    like port: Int,
    instance: String = "liar",
    isWrong: @escaping @Sendable () -> Bool,
    _ body: (Int) async throws -> Result
) async throws -> Result {
    try await withChannel(port: port) { channel in
        var own = try await channel.call(ExpertHostMethods.describe, DescribeHostRequest(), as: HostDescription.self)
        own.instanceID = instance
        let described = own.serialized()
        let server = RPCServer(
            configuration: RPCServerConfiguration(limits: .dataPlane, drainGrace: .zero),
            methods: [
                .unaryOnEventLoop(.init(service: ExpertHostMethods.service, name: "Describe")) { _, _, responder in
                    responder.finish(.success(Payload(bytes: described)))
                }
            ]
                + ["Forward", "Backward"]
                .map { name in
                    .unaryOnEventLoop(.init(service: ExpertHostMethods.service, name: name)) { message, _, responder in
                        let payload = Payload(bytes: Array(message.readableBytesView))
                        let method = Method(service: ExpertHostMethods.service, name: name)
                        let options = CallOptions(deadline: .now.advanced(by: .seconds(60)))
                        _ = channel.unary(method, payload, options: options) { result in
                            responder.finish(
                                result.map { reply in
                                    let bytes = Array(reply.message.readableBytesView)
                                    guard isWrong(), var response = try? ForwardResponse(serialized: bytes) else {
                                        return Payload(bytes: bytes)
                                    }
                                    response.outputs?.data[0] ^= 1
                                    return Payload(bytes: response.serialized())
                                }
                            )
                        }
                    }
                },
            logger: quietLogger
        )
        let task = Task { try await server.run() }
        let outcome: Swift.Result<Result, any Error>
        do {
            outcome = .success(try await body(try await server.boundAddress().port))
        } catch {
            outcome = .failure(error)
        }
        task.cancel()
        _ = await task.result
        return try outcome.get()
    }
}

extension Illness {
    fileprivate func answer(to request: ForwardRequest) -> Swift.Result<Payload, RPCError>? {
        var shape = request.tokens?.shape ?? []
        var data = request.tokens?.data ?? []
        switch self {
        case .stalls:
            return nil
        case .overloaded:
            return .failure(RPCError(.resourceExhausted, "too many rows wait"))
        case .refuses, .knowsNoGradients:
            return .failure(RPCError(.failedPrecondition, "not held here"))
        case .garbage:
            return .success(Payload(bytes: [0xFF, 0xFF, 0xFF]))
        case .notFinite:
            data.replaceSubrange(data.count - 4..<data.count, with: [0, 0, 0xC0, 0x7F])
        case .huge:
            let value = withUnsafeBytes(of: Float(3e38).bitPattern.littleEndian) { Array($0) }
            data = (0..<data.count).map { value[$0 % 4] }
        case .wrongShape:
            let columns = Int(shape[1])
            shape[0] += 1
            data += [UInt8](repeating: 0, count: columns * 4)
        }
        let response = ForwardResponse(outputs: Tensor(dtype: .float32, shape: shape, data: data))
        return .success(Payload(bytes: response.serialized()))
    }
}
