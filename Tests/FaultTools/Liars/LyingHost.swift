// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import SwitchyardProtos
internal import Synchronization

/// What a lying host does to the true host's answers.
package enum Lie: String, Sendable, CaseIterable {
    /// A value that is not a number.
    case nan
    /// An infinite value.
    case infinity
    /// Rows and columns exchanged.
    case shape
    /// One row too few.
    case rows
    /// Bytes that are not a message.
    case noMessage
    /// Finite values that no expert could have computed.
    case huge
    /// Each row in place of another; a single row with its halves exchanged.
    case otherRows
    /// Rows of zeros.
    case zeroRows

    /// Turns a true answer into a lie.
    ///
    /// - Parameter message: The answer's bytes.
    /// - Returns: Other bytes.
    func distorted(_ message: [UInt8]) -> [UInt8] {
        if self == .noMessage { return [0xFF, 0xFF, 0xFF, 0xFF] }
        guard var response = try? ForwardResponse(serialized: message), var outputs = response.outputs,
            outputs.shape.count == 2, outputs.data.count >= 4
        else { return [] }
        switch self {
        case .nan: outputs.data.replaceSubrange(outputs.data.count - 4..<outputs.data.count, with: [0, 0, 0xC0, 0x7F])
        case .infinity: outputs.data.replaceSubrange(0..<4, with: [0, 0, 0x80, 0x7F])
        case .shape: outputs.shape.reverse()
        case .rows:
            let rowBytes = Int(outputs.shape[1]) * 4
            outputs.shape[0] -= 1
            outputs.data.removeLast(min(rowBytes, outputs.data.count))
        case .huge:
            // 3e38 in float32.
            outputs.data = Self.repeated([0xE6, 0xB1, 0x61, 0x7F], count: outputs.data.count)
        case .otherRows:
            let rows = Int(outputs.shape[0])
            let step = outputs.data.count / (rows > 1 ? rows : 2)
            outputs.data = Array(outputs.data[step...] + outputs.data[..<step])
        case .zeroRows: outputs.data = [UInt8](repeating: 0, count: outputs.data.count)
        case .noMessage: break
        }
        response.outputs = outputs
        return response.serialized()
    }

    private static func repeated(_ value: [UInt8], count: Int) -> [UInt8] {
        (0..<count).map { value[$0 % value.count] }
    }
}

/// An expert host that forwards calls to a true one, and lies about the answers on request.
///
/// It describes itself as the true host does, so that only its answers give it away.
package final class LyingHost: Sendable {
    /// `host:port`.
    package let address: String
    private let lie = Mutex<Lie?>(nil)
    private let lies = Mutex(0)

    private init(address: String) {
        self.address = address
    }

    /// From now on answers are lies; nil makes them true again.
    package func tell(_ lie: Lie?) { self.lie.withLock { $0 = lie } }

    /// How many lies were told.
    package var told: Int { self.lies.withLock { $0 } }

    /// Runs a lying host while a body runs.
    ///
    /// - Parameters:
    ///   - honest: `host:port` of the true host.
    ///   - body: Gets the lying one, which at first tells the truth.
    /// - Returns: What the body returns.
    /// - Throws: What the body throws; errors of listening.
    package static func with<Result: Sendable>(
        before honest: String,
        _ body: (LyingHost) async throws -> Result
    ) async throws -> Result {
        let upstream = try SocketAddressText(honest)
        let logger = Logger(label: "faults") { _ in SwiftLogNoOpLogHandler() }
        let channel = RPCChannel(
            target: (host: upstream.host, port: upstream.port),
            configuration: RPCChannelConfiguration(limits: .dataPlane, reconnect: .dataPlane),
            logger: logger
        )
        let current = Current()
        let server = RPCServer(
            configuration: RPCServerConfiguration(limits: .dataPlane, timing: .dataPlane, drainGrace: .zero),
            methods: [
                .unary(Self.describe) { message, context in
                    let options = CallOptions(deadline: context.deadline)
                    return Payload(try await channel.unary(Self.describe, Payload(message), options: options).message)
                },
                .unary(Self.forward) { message, context in
                    let options = CallOptions(deadline: context.deadline)
                    let reply = try await channel.unary(Self.forward, Payload(message), options: options).message
                    guard let host = current.host.withLock({ $0 }), let lie = host.lie.withLock({ $0 }) else {
                        return Payload(reply)
                    }
                    host.lies.withLock { $0 += 1 }
                    return Payload(bytes: lie.distorted(Array(reply.readableBytesView)))
                },
            ],
            logger: logger
        )
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await channel.run() }
            group.addTask { try await server.run() }
            let outcome: Swift.Result<Result, any Error>
            do {
                let bound = try await server.boundAddress()
                let host = LyingHost(address: "\(bound.host):\(bound.port)")
                current.host.withLock { $0 = host }
                outcome = .success(try await body(host))
            } catch {
                outcome = .failure(error)
            }
            group.cancelAll()
            while let ended = await group.nextResult() {
                if case .failure(let error) = ended, case .success = outcome, !(error is CancellationError) {
                    throw error
                }
            }
            return try outcome.get()
        }
    }

    /// The host, which is created after the server that needs it.
    private final class Current: Sendable {
        let host = Mutex<LyingHost?>(nil)
    }

    private static let describe = Method(
        service: ExpertHostMethods.describe.service,
        name: ExpertHostMethods.describe.name
    )
    private static let forward = Method(
        service: ExpertHostMethods.forward.service,
        name: ExpertHostMethods.forward.name
    )
}

/// A host and a port.
struct SocketAddressText {
    let host: String
    let port: Int

    init(_ text: String) throws {
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]) else {
            throw FaultError("\(text) is not host:port")
        }
        self.host = String(text[..<colon])
        self.port = port
    }
}
