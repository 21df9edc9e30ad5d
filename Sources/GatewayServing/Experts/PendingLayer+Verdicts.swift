// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling
internal import Logging
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import Telemetry

// What the answers to a layer's calls are worth.
extension PendingLayer {
    /// Reads answers, and feeds all of them to the machine in one step.
    ///
    /// - Returns: The layer's outputs, if no call is left.
    @discardableResult
    func judge(_ answers: ShortList<Answer>) -> ExpertOutputs? {
        var verdicts = ShortList<Verdict>()
        for answer in answers { verdicts.append(self.verdict(on: answer)) }
        self.confirmOwnOpinion(before: answers)
        var ended: [(attempt: Attempt, index: Int)] = []
        let isLogged = self.cluster.logger.logLevel <= .debug
        let outputs = self.step { layer, cluster, now in
            var actions: [LayerAction] = []
            for (index, answer) in answers.enumerated() {
                // An earlier one of these answers may have ended the call.
                guard layer.machine.isOut(answer.attempt),
                    let attempt = layer.takeOut(answer.attempt)
                else { continue }
                if isLogged { ended.append((attempt, index)) }
                switch verdicts[index] {
                case .good(let reply) where reply.failed.isEmpty && layer.machine.isAudited(answer.attempt.call):
                    actions += self.compare(reply, answer, in: &layer, pools: &cluster.pools)
                    actions += cluster.answered(attempt.replica, load: reply.load, now: now).map { .pool($0) }
                case .good(let reply) where reply.failed.isEmpty:
                    let taken = layer.machine.answered(answer.attempt, pools: &cluster.pools, now: answer.time)
                    // A replica that has been caught since it was asked is not believed.
                    if !layer.machine.isOpen(answer.attempt.call) { self.take(reply, answer, taken, in: &layer) }
                    actions += taken
                    actions += cluster.answered(attempt.replica, load: reply.load, now: now).map { .pool($0) }
                case .good(let reply):
                    actions += self.addPart(reply, answer, to: &layer, pools: &cluster.pools)
                    actions += cluster.answered(attempt.replica, load: reply.load, now: now).map { .pool($0) }
                case .bad(let failure, let pushback, _):
                    actions += layer.machine.failed(
                        answer.attempt,
                        failure,
                        pushback: pushback,
                        pools: &cluster.pools,
                        now: now
                    )
                }
            }
            return actions
        }
        for (attempt, index) in ended { self.log(attempt, answers[index], verdicts[index]) }
        return outputs
    }

    /// Keeps the good rows of an answer that lacks some, and asks for the others.
    private func addPart(
        _ reply: LayerReply,
        _ answer: Answer,
        to layer: inout State,
        pools: inout ExpertPools
    ) -> [LayerAction] {
        let call = answer.attempt.call
        var part = layer.parts[call] ?? PartialOutputs(of: self.calls[call].assignment)
        part.add(reply)
        if part.missing.isEmpty {
            layer.parts[call] = nil
            layer.outputs.chunks += part.chunks
        } else {
            layer.parts[call] = part
        }
        return layer.machine.answeredInPart(
            answer.attempt,
            missing: part.missing.count,
            pools: &pools,
            now: answer.time
        )
    }

    private func verdict(on answer: Answer) -> Verdict {
        switch answer.result {
        case .success(let reply):
            do throws(BadReply) {
                return .good(try self.calls[answer.attempt.call].read(reply.message))
            } catch {
                return .bad(.badReply, pushback: nil, detail: error.description)
            }
        case .failure(let error):
            return .bad(CallFailure(error.code), pushback: error.retryPushback, detail: error.description)
        }
    }

    /// Logs how an attempt ended, with its trace; good answers only if the call is traced.
    private func log(_ attempt: Attempt, _ answer: Answer, _ verdict: Verdict) {
        var metadata: Logger.Metadata = ["replica": "\(attempt.replica)", "layer": "\(self.layer.words)"]
        if let trace = self.trace, let span = attempt.span {
            metadata.merge(trace.logMetadata(of: span)) { _, new in new }
        }
        switch verdict {
        case .good(let reply) where !reply.failed.isEmpty:
            metadata["detail"] = "\(reply.detail)"
            self.cluster.logger.debug("an expert host's answer lacks rows", metadata: metadata)
        case .good:
            guard attempt.span != nil else { return }
            metadata["time"] = "\(attempt.started.duration(to: answer.time))"
            self.cluster.logger.debug("an expert host answered", metadata: metadata)
        case .bad(let failure, _, let detail):
            metadata["failure"] = "\(failure)"
            metadata["detail"] = "\(detail)"
            self.cluster.logger.debug("a call to an expert host failed", metadata: metadata)
        }
    }
}

extension RPCError {
    /// How long the host asks to be left without calls, if it does; more than a minute is ignored.
    var retryPushback: Duration? {
        guard case .wait(let time) = RetryPushback(self.metadata), time <= .seconds(60) else { return nil }
        return time
    }
}

extension DropReason {
    /// The model's name for the reason why the pools dropped rows.
    init(_ cause: DropCause) {
        switch cause {
        case .timeout: self = .timeout
        case .unavailable: self = .unavailable
        case .overloaded: self = .overloaded
        case .badReply: self = .badReply
        }
    }
}
