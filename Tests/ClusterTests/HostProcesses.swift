// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import Logging
import NIOCore
import RPCCore
import RPCTransport
import SwitchyardProtos
import SwitchyardTypes
import Synchronization

@testable import switchyard

/// What happened to a test's processes.
final class ProcessLog: Sendable {
    private let state = Mutex<(lines: [String], exits: [String: String])>(([], [:]))

    /// What the processes wrote.
    var lines: [String] { self.state.withLock { $0.lines } }

    /// How a process ended, in the system's words.
    func exit(of name: String) -> String? { self.state.withLock { $0.exits[name] } }

    /// Records an event.
    func note(_ event: ChildEvent) {
        self.state.withLock { state in
            switch event {
            case .started: break
            case .line(let name, let text): state.lines.append("[\(name)] \(text)")
            case .exited(let name, let status): state.exits[name] = status
            }
        }
    }
}

/// Starts one expert host for some of the miniature's two pools, gives it to the body and stops it.
///
/// - Parameters:
///   - shards: The pools whose shards it holds.
///   - arguments: Further arguments of the host, which is named `host`.
///   - body: The test.
/// - Throws: What the body throws, or why the host did not start.
func withHostProcess(
    shards: [String] = ["pool-0"],
    _ arguments: [String] = [],
    body: @escaping @Sendable (ChildProcess, ProcessLog) async throws -> Void
) async throws {
    let workspace = try ShardWorkspace.prepare(model: TestCluster.miniature, pools: 2, folder: nil)
    defer { workspace.discard() }
    let log = ProcessLog()
    let addressFile = "\(workspace.folder)/host.address"
    let host = ChildSpecification(
        name: "host",
        arguments: [
            "expert-host", "--listen", "127.0.0.1:0", "--admin-listen", "off", "--threads", "1", "--address-file",
            addressFile,
            "--exit-with-standard-input",
        ] + shards.flatMap { ["--shard", "\(workspace.folder)/\($0)"] } + arguments,
        addressFile: addressFile
    )
    do {
        try await ChildProcesses.run(
            [host],
            executable: TestCluster.executable,
            onExit: .accept,
            startTimeout: .seconds(300),
            events: { log.note($0) },
            body: { children in
                guard let process = children.running.first else {
                    throw ChildProcessError(description: "the host left as soon as it was up")
                }
                try await body(process, log)
            }
        )
    } catch {
        print(log.lines.suffix(40).joined(separator: "\n"))
        throw error
    }
}

/// Runs a channel to a host, as a gateway does, and gives it to the body.
func withHostChannel<Result: Sendable>(
    _ host: ChildProcess,
    body: (RPCChannel) async throws -> Result
) async throws -> Result {
    let target = try ListenAddressParts(host.address)
    let channel = RPCChannel(
        target: (host: target.host, port: target.port),
        configuration: RPCChannelConfiguration(limits: .dataPlane, reconnect: .dataPlane),
        logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
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

/// `host:port` in its parts.
private struct ListenAddressParts {
    let host: String
    let port: Int

    init(_ address: String) throws {
        let parts = address.split(separator: ":")
        guard parts.count == 2, let port = Int(parts[1]) else {
            throw ChildProcessError(description: "\(address) is not HOST:PORT")
        }
        self.host = String(parts[0])
        self.port = port
    }
}

extension RPCChannel {
    /// Makes a `Forward` call.
    ///
    /// - Parameter request: A serialized `ForwardRequest`.
    /// - Returns: The output rows' bytes, and how busy the host is.
    /// - Throws: `RPCError` if the call is not answered.
    func forward(_ request: [UInt8]) async throws -> (rows: [UInt8], load: HostLoad?) {
        let reply = try await self.unary(
            Method(service: ExpertHostMethods.forward.service, name: ExpertHostMethods.forward.name),
            Payload(bytes: request),
            options: CallOptions(deadline: .now.advanced(by: .seconds(300)))
        )
        return try Self.forwarded(reply)
    }

    private static func forwarded(_ reply: UnaryReply) throws -> (rows: [UInt8], load: HostLoad?) {
        let message = Array(buffer: reply.message)
        let (envelope, rows) = try message.withUnsafeBytes { try ForwardResponseEnvelope.parse($0) }
        return (Array(message[rows]), envelope.load)
    }

    /// Starts a `Forward` call that the host has, without its request.
    ///
    /// - Returns: Sends the request and waits for the answer.
    /// - Throws: `RPCError` if the host does not answer.
    func heldForward() async throws -> (_ request: [UInt8]) async throws -> (rows: [UInt8], load: HostLoad?) {
        let call = self.clientStreaming(
            Method(service: ExpertHostMethods.forward.service, name: ExpertHostMethods.forward.name)
        )
        // Sent after it on the same connection: when this one is answered, the host has the call.
        _ = try await self.describeHost()
        return { request in
            try await call.requests.write(Payload(bytes: request))
            call.requests.finish()
            return try Self.forwarded(await call.response())
        }
    }

    /// Starts to watch the host's health.
    ///
    /// - Returns: Waits until the host says that it does not serve.
    func watchedHealth() -> () async throws -> Void {
        let health = self.serverStreaming(
            Method(service: HealthMethods.watch.service, name: HealthMethods.watch.name),
            Payload(bytes: HealthCheckRequest(service: ExpertHostMethods.service).serialized())
        )
        return {
            for try await message in health
            where try HealthCheckResponse(serialized: Array(buffer: message)).status == .notServing { return }
            throw ChildProcessError(description: "the host ended its health stream, and never said that it drains")
        }
    }

    /// The host's description, once it can be reached.
    func describeHost() async throws -> HostDescription {
        let reply = try await self.unary(
            Method(service: ExpertHostMethods.describe.service, name: ExpertHostMethods.describe.name),
            Payload(bytes: DescribeHostRequest().serialized()),
            options: CallOptions(deadline: .now.advanced(by: .seconds(300)), waitForReady: true)
        )
        return try HostDescription(serialized: Array(buffer: reply.message))
    }
}

extension HostDescription {
    /// A valid `Forward` call for the host: this many rows for each expert of its first layer.
    func request(rowsPerExpert rows: Int) -> ForwardRequest {
        guard let layer = self.held.first else {
            return ForwardRequest()
        }
        let count = rows * layer.experts.count
        var data: [UInt8] = []
        for index in 0..<(count * Int(self.modelWidth)) {
            withUnsafeBytes(of: (Float(index % 97) / 50 - 1).bitPattern.littleEndian) { data += $0 }
        }
        return ForwardRequest(
            modelFingerprint: self.modelFingerprint,
            stack: layer.stack,
            layer: layer.layer,
            groups: layer.experts.map { ExpertRows(expert: $0, rows: UInt32(rows)) },
            tokens: Tensor(dtype: .float32, shape: [UInt32(count), self.modelWidth], data: data)
        )
    }
}
