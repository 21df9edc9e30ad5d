// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore
internal import SwitchyardTypes

// Attempts of one call: what another one needs, and when it is made.
extension ClientCall {
    /// Keeps a message for another attempt, as long as there is room.
    func keep(_ payload: Payload) {
        guard !self.retries.isCommitted else { return }
        self.messages.append(payload)
        self.keptBytes += payload.byteCount
        if self.keptBytes > self.configuration.retry.policy.bufferBytes { self.commit() }
    }

    /// Lets go of what another attempt would need.
    func commit() {
        guard !self.retries.isCommitted else { return }
        self.retries.commit()
        self.messages.removeAll()
    }

    /// Makes the call again, if the policy says so.
    ///
    /// Returns whether the call goes on.
    func tryAgain(_ end: ClientCallState.End?, _ progress: CallRetries.Progress = .unknown) -> Bool {
        guard let end, !end.status.isOK, let slot = self.slot else { return false }
        let timeLeft = self.options.dueTime.map { Duration.nanoseconds(($0 - .now()).nanoseconds) }
        let decision = self.configuration.retry.withBudget { budget in
            self.retries.failed(
                code: end.status.code,
                pushback: RetryPushback(end.metadata),
                progress: progress,
                timeLeft: timeLeft,
                budget: &budget,
                chance: .random(in: 0...1)
            )
        }
        guard case .again(let wait, let previousAttempts) = decision else { return false }
        self.reset(end.reset)
        if let streamID = self.streamID { self.connection?.forget(streamID) }
        self.streamID = nil
        self.connection = nil
        self.previousAttempts = previousAttempts
        self.state = ClientCallState(shape: self.state.shape, encodings: Self.encodings)
        for _ in self.messages { _ = self.state.messageSent() }
        if self.requestIsComplete { _ = self.state.requestEnded() }
        self.assembler = MessageAssembler(maxMessageBytes: self.configuration.limits.maxReceiveMessageBytes)
        self.uncreditedBytes = 0
        let bound = NIOLoopBound(self, eventLoop: slot.eventLoop)
        // Never from inside the event that ended the attempt: the connection may be closing itself.
        self.waitTimer = slot.eventLoop.scheduleTask(in: wait.timeAmount) {
            bound.value.waitTimer = nil
            if let slot = bound.value.slot {
                slot.submit(bound.value)
            } else {
                bound.value.fail(.notSent(.unavailable, "the channel is gone"))
            }
        }
        return true
    }
}
