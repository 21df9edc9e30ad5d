// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling
internal import Logging
internal import RPCCore
internal import RPCTransport
internal import SwitchyardProtos
internal import Synchronization

extension ExpertCluster {
    /// How many hosts hold a checkpoint that was asked for.
    struct Holdings: Sendable, Equatable {
        /// Replicas that are verified, or another address of one that is.
        var ready = 0
        /// Replicas with a connection.
        var connected = 0
        /// Why a host cannot hold it; nil if none refused.
        var refusal: String?
    }

    /// How many of the hosts hold this cluster's checkpoint.
    var holdings: Holdings {
        let (reports, refusals) = self.state.withLock { ($0.pools.reports, $0.refusals) }
        var holdings = Holdings()
        for report in reports {
            switch report.state {
            case .ready, .spare:
                holdings.ready += 1
                holdings.connected += 1
            case .unverified, .mismatched, .probing, .ejected, .quarantined: holdings.connected += 1
            case .disconnected, .draining: break
            }
            if case .mismatched(let reason) = report.state { holdings.refusal = "\(report.id): \(reason)" }
        }
        if let (id, reason) = refusals.min(by: { $0.key < $1.key }) { holdings.refusal = "\(id): \(reason)" }
        return holdings
    }

    /// Asks a replica to describe what it holds of this cluster's checkpoint; has it loaded first where that is named.
    ///
    /// - Parameters:
    ///   - id: The replica.
    ///   - channel: The connection to it.
    /// - Returns: The description.
    /// - Throws: `RPCError` where it gives none, or still loads.
    func description(of id: ReplicaID, over channel: RPCChannel) async throws -> HostDescription {
        let options = CallOptions(deadline: .now.advanced(by: self.configuration.describeTimeout))
        guard let holding = self.holding else {
            let request = DescribeHostRequest(modelFingerprint: self.fingerprint)
            let reply = try await channel.unary(.describe, Payload(bytes: request.serialized()), options: options)
            return try HostDescription(reading: reply.message)
        }
        do {
            let request = HoldRequest(modelFingerprint: self.fingerprint, checkpoint: holding)
            let reply = try await channel.unary(.hold, Payload(bytes: request.serialized()), options: options)
            self.state.withLock { $0.refusals[id] = nil }
            return try HostDescription(reading: reply.message)
        } catch let error as RPCError {
            switch error.code {
            case .failedPrecondition, .invalidArgument, .unimplemented:
                self.state.withLock { $0.refusals[id] = error.message }
            default: break
            }
            throw error
        }
    }

    /// Has every connected host hold one checkpoint alone.
    ///
    /// - Parameter fingerprint: The checkpoint.
    /// - Returns: What the first host that does not says; nil if all do.
    func settle(_ fingerprint: UInt64) async -> String? {
        let channels = self.state.withLock { state in
            let connected = Set(
                state.pools.reports.filter { $0.state == .ready }.map(\.id)
            )
            return state.channels.filter { connected.contains($0.key) }.sorted { $0.key < $1.key }
        }
        var failure: String?
        for (id, channel) in channels {
            do {
                _ = try await channel.unary(
                    .settle,
                    Payload(bytes: SettleRequest(modelFingerprint: fingerprint).serialized()),
                    options: CallOptions(deadline: .now.advanced(by: .seconds(10)))
                )
            } catch let error as RPCError where error.code == .unimplemented {
                // A version that holds one checkpoint alone anyway.
                self.logger.debug("an expert host knows no rollouts", metadata: ["replica": "\(id)"])
            } catch {
                failure = failure ?? "\(id): \((error as? RPCError)?.message ?? "\(error)")"
            }
        }
        return failure
    }
}
