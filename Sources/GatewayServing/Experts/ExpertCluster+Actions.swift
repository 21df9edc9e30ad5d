// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling
internal import Logging
internal import Synchronization

// The machine's steps.
extension ExpertCluster {
    /// Lock, one step of the machine, unlock, then the actions that it requests.
    func transition(_ step: (inout State) -> [PoolAction]) {
        self.follow(self.state.withLock { step(&$0) })
    }

    /// Logs replicas and pools that stopped serving, or serve again.
    private func tellNews(_ actions: [PoolAction]) {
        let lines = self.state.withLock { state -> [ServingNews.Line] in
            guard !state.isEnding else { return [] }
            let now = ContinuousClock.now
            for action in actions {
                switch action {
                case .joined(let id), .spare(let id, of: _): state.news.note(id, isUp: true, now: now)
                case .describe, .ejected, .draining, .mismatched, .quarantined, .cleared, .disputed, .proveEvidence:
                    break
                }
            }
            for pool in self.configuration.pools {
                state.news.note(pool: pool.name, isUp: state.pools.isReady(pool.name), now: now)
            }
            return state.news.lines(now: now)
        }
        for line in lines {
            switch line {
            case .lost(let id):
                self.logger.warning("the connection to an expert host is lost", metadata: ["replica": "\(id)"])
            case .poolLost(let pool):
                self.logger.error(
                    "a pool has lost its last expert host; its tokens \(self.configuration.rowsWait ? "wait" : "are dropped") until one is back",
                    metadata: ["pool": "\(pool)"]
                )
            case .poolBack(let pool, let time):
                self.logger.info("a pool has an expert host again", metadata: ["pool": "\(pool)", "after": "\(time)"])
            }
        }
    }

    /// Runs the actions that the machine requests after a step.
    func follow(_ actions: [PoolAction]) {
        let (wakeAt, becameComplete, hasNews) = self.state.withLock { state -> (ContinuousClock.Instant?, Bool, Bool) in
            var wakeAt: ContinuousClock.Instant?
            if let next = state.pools.nextTimer, state.wakeAt.map({ next < $0 }) ?? true {
                state.wakeAt = next
                wakeAt = next
            }
            guard state.judgedVersion != state.pools.readyVersion else {
                return (wakeAt, false, state.news.isPending)
            }
            state.judgedVersion = state.pools.readyVersion
            let isComplete = state.pools.isComplete(layers: self.layers, expertCount: self.expertCount)
            defer { state.isComplete = isComplete }
            return (wakeAt, isComplete && !state.isComplete, true)
        }
        if let wakeAt {
            self.workSource.yield(.wake(at: wakeAt))
        }
        for action in actions {
            self.act(on: action)
        }
        if hasNews { self.tellNews(actions) }
        if becameComplete {
            self.logger.info("every expert is held by a verified host")
            self.completionSource.finish()
        }
    }

    private func act(on action: PoolAction) {
        switch action {
        case .describe(let id):
            self.workSource.yield(.describe(id))
        case .proveEvidence(let id):
            self.proveEvidence(by: id)
        case .quarantined, .cleared, .disputed:
            self.logAudit(action)
        case .joined(let id):
            self.logger.info("an expert host is ready", metadata: ["replica": "\(id)"])
        case .ejected(let id, let time, let reason):
            self.logger.warning(
                "an expert host is ejected",
                metadata: ["replica": "\(id)", "time": "\(time)", "reason": "\(reason.words)"]
            )
        case .draining(let id):
            self.logger.info("an expert host is draining", metadata: ["replica": "\(id)"])
        case .spare(let id, of: let first):
            self.logger.info(
                "an address leads to an expert host that is already a replica; it is kept as a spare",
                metadata: ["replica": "\(id)", "first": "\(first.address)"]
            )
        case .mismatched(let id, let reason):
            self.logger.error(
                "an expert host is mismatched",
                metadata: ["pool": "\(id.pool)", "replica": "\(id.address)", "reason": "\(reason)"]
            )
        }
    }
}

extension EjectionReason {
    /// The reason in words.
    var words: String {
        switch self {
        case .failed(.deadline): "its calls miss their deadline"
        case .failed(.unavailable): "its connections break during calls"
        case .failed(.overloaded): "it sheds load"
        case .failed(.badReply): "its replies are unusable"
        case .failed(.refused): "it refuses calls"
        case .failed(.wrongReply): "its outputs are wrong"
        case .overtaken: "other replicas keep answering its calls first"
        case .slow: "it is slower than its siblings"
        }
    }
}
