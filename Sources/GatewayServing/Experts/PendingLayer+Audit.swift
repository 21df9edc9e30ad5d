// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling
internal import Logging
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchModel
internal import SwitchyardTypes

// The audited calls of a layer: what the machine decides by number is compared here, as bits.
extension PendingLayer {
    /// Follows an action of an audit.
    static func applyAudit(_ action: LayerAction, to state: inout State, calls: [LayerCall], work: inout Work) {
        switch action {
        case .recompute(let call):
            work.recomputes.append(call)
        case .accept(let call, let opinion):
            guard let opinions = state.opinions.removeValue(forKey: call), opinions.all.indices.contains(opinion) else {
                return
            }
            state.parts[call] = nil
            state.taken[call] = opinions.all[opinion].tensor
            state.outputs.chunks += opinions.all[opinion].reply.chunks
        case .dispute(let call):
            if let opinions = state.opinions.removeValue(forKey: call) {
                state.parts[call] = PartialOutputs(agreedIn: opinions, of: calls[call])
            }
        case .caught(let call, let replica):
            if let proof = Proof(calls[call], state.taken[call]) { work.evidence.append((replica, proof)) }
        case .prove(let call, let replica):
            if let proof = Proof(calls[call], state.taken[call]) { work.proofs.append((replica, proof)) }
        case .send, .cancel, .drop, .pool:
            break
        }
    }

    /// Takes the rows of a call that is not audited.
    func take(_ reply: LayerReply, _ answer: Answer, _ actions: [LayerAction], in layer: inout State) {
        let call = answer.attempt.call
        layer.parts[call] = nil
        layer.outputs.chunks.append(contentsOf: reply.chunks)
        let isProof = actions.contains { if case .prove(call, _) = $0 { true } else { false } }
        if isProof, case .success(let success) = answer.result {
            layer.taken[call] = LayerCall.tensor(of: success.message)
        }
    }

    /// Compares an answer to an audited call with those before it.
    func compare(
        _ reply: LayerReply,
        _ answer: Answer,
        in layer: inout State,
        pools: inout ExpertPools
    ) -> [LayerAction] {
        let call = answer.attempt.call
        guard case .success(let success) = answer.result, let tensor = LayerCall.tensor(of: success.message) else {
            return layer.machine.failed(answer.attempt, .badReply, pools: &pools, now: answer.time)
        }
        var opinions = layer.opinions[call] ?? CallOpinions(of: self.calls[call])
        let number = opinions.add(tensor, reply)
        layer.opinions[call] = opinions
        return layer.machine.heard(
            answer.attempt,
            opinion: number,
            conflicting: opinions.conflicting.count,
            pools: &pools,
            now: answer.time
        )
    }

    /// Has the gateway compute a call's rows.
    func recompute(_ call: Int) {
        let done: @Sendable (ByteBuffer?) -> Void = { tensor in
            self.state.notify { state in
                if !state.isCancelled { state.recomputed.append((call, tensor)) }
            }
        }
        guard let own = self.cluster.ownExperts,
            let type = self.cluster.weightType(of: self.calls[call].assignment.pool)
        else {
            done(nil)
            return
        }
        own.compute(self.calls[call], in: self.layer, type: type, done: done)
    }

    /// Compares what the gateway computed with the hosts' answers.
    ///
    /// - Returns: The layer's outputs, if no call is left.
    @discardableResult
    func judge(_ rows: [(call: Int, tensor: ByteBuffer?)]) -> ExpertOutputs? {
        var rows = rows
        for index in rows.indices {
            guard let tensor = rows[index].tensor else { continue }
            let others = self.state.withLock { $0.opinions[rows[index].call] }
            // Before a host is accused, the gateway makes sure of its own copy.
            if let others, others.number(of: tensor) == nil {
                rows[index].tensor = self.freshRows(of: rows[index].call, insteadOf: tensor)
            }
        }
        return self.step { layer, cluster, now in
            var actions: [LayerAction] = []
            for (call, tensor) in rows {
                guard let tensor else {
                    actions += layer.machine.recomputed(call, opinion: nil, pools: &cluster.pools, now: now)
                    continue
                }
                var opinions = layer.opinions[call] ?? CallOpinions(of: self.calls[call])
                let number = opinions.add(tensor, self.calls[call].reply(tensor: tensor))
                layer.opinions[call] = opinions
                actions += layer.machine.recomputed(
                    call,
                    opinion: number,
                    conflicting: opinions.conflicting.count,
                    pools: &cluster.pools,
                    now: now
                )
            }
            return actions
        }
    }

    /// Makes sure of the gateway's opinion on calls whose answers differ from it.
    func confirmOwnOpinion(before answers: ShortList<Answer>) {
        guard self.cluster.ownExperts != nil else { return }
        for answer in answers {
            let call = answer.attempt.call
            let own: ByteBuffer? = self.state.withLock { state in
                state.machine.ownOpinion(on: call).flatMap { state.opinions[call]?.all[$0].tensor }
            }
            guard let own, case .success(let success) = answer.result,
                let tensor = LayerCall.tensor(of: success.message), tensor != own,
                let fresh = self.freshRows(of: call, insteadOf: own), fresh != own
            else { continue }
            self.state.withLock { state in
                var opinions = CallOpinions(of: self.calls[call])
                _ = opinions.add(fresh, self.calls[call].reply(tensor: fresh))
                state.opinions[call] = opinions
            }
        }
    }

    private func freshRows(of call: Int, insteadOf tensor: ByteBuffer) -> ByteBuffer? {
        guard let own = self.cluster.ownExperts,
            let type = self.cluster.weightType(of: self.calls[call].assignment.pool),
            let fresh = own.rows(of: self.calls[call], in: self.layer, type: type, isFresh: true)
        else { return nil }
        if fresh != tensor {
            self.cluster.logger.error(
                "this gateway's copy of an expert was damaged in memory and is loaded again; check this machine's memory",
                metadata: ["layer": "\(self.layer.words)"]
            )
        }
        return fresh
    }
}
