// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchModel
internal import Synchronization
internal import TensorKernels

/// The calls that wait for a training host's compute thread, in the order of arrival.
final class HostJobs: Sendable {
    private struct Job {
        let responder: UnaryResponder
        let answersLater: Bool
        let work: @Sendable (ShardReplica) throws(RPCError) -> Payload
    }

    private struct State: ~Copyable {
        var waiting: [Int: Job] = [:]
        var first = 0
        var next = 0
        var isEnding = false
        var summary: (shard: String, run: UInt64, step: Int?, bytes: Int)?
    }

    /// Calls that may wait; a trainer has a few in flight.
    static let limit = 4096

    private let state = Monitor(State())
    private let background = DispatchQueue(label: "snapshots")

    /// What the host holds, as of its last call.
    var summary: (shard: String, run: UInt64, step: Int?, bytes: Int)? { self.state.withLock { $0.summary } }

    /// Calls that wait.
    var count: Int { self.state.withLock { $0.waiting.count } }

    /// Queues a call; from an event loop.
    ///
    /// - Parameters:
    ///   - context: The call, which leaves the queue when its caller does.
    ///   - responder: Answers it.
    ///   - answersLater: Whether `work` answers a call that succeeds by itself.
    ///   - work: Computes the answer, on the compute thread.
    func push(
        _ context: ServerContext,
        _ responder: UnaryResponder,
        answersLater: Bool = false,
        _ work: @escaping @Sendable (ShardReplica) throws(RPCError) -> Payload
    ) {
        let job = Job(responder: responder, answersLater: answersLater, work: work)
        let result: Result<Int, RPCError> = self.state.notify { state in
            if state.isEnding { return .failure(RPCError(.unavailable, "the host drains")) }
            guard state.waiting.count < Self.limit else {
                return .failure(RPCError(.resourceExhausted, "\(Self.limit) calls wait already"))
            }
            defer { state.next += 1 }
            state.waiting[state.next] = job
            return .success(state.next)
        }
        switch result {
        case .failure(let error): responder.finish(.failure(error))
        case .success(let id):
            context.onCancel { [weak self] in self?.state.withLock { $0.waiting[id] = nil } }
        }
    }

    /// Runs something beside the compute thread, one after the other.
    func inBackground(_ body: @escaping @Sendable () -> Void) {
        self.background.async(execute: body)
    }

    /// Takes no more calls; ``run(on:)`` returns once all are answered.
    func beginDraining() {
        self.state.notify { $0.isEnding = true }
    }

    /// Answers calls until draining has ended; blocks the compute thread.
    func run(on replica: ShardReplica) {
        while let job = self.next() {
            let result: Result<Payload, RPCError>
            do throws(RPCError) {
                result = .success(try job.work(replica))
            } catch {
                result = .failure(error)
            }
            let summary = replica.summary
            self.state.withLock { $0.summary = summary }
            if case .success = result, job.answersLater { continue }
            job.responder.finish(result)
        }
        // Snapshots on their way to the disk are finished.
        self.background.sync {}
    }

    private func next() -> Job? {
        let found: Job?? = self.state.wait { state in
            while state.first < state.next {
                defer { state.first += 1 }
                if let job = state.waiting.removeValue(forKey: state.first) { return .some(job) }
            }
            return state.isEnding ? .some(nil) : nil
        }
        return found ?? nil
    }
}
