// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
package import SwitchModel
package import SwitchyardTypes

/// Another executor's experts behind a network that loses answers, reproducibly: for measuring what a drop costs.
///
/// The experts compute every row; lost rows are then cut out of their answer. Whether a row is lost is a function of
/// the seed, the layer, the step and the row, so neither the order of calls nor the number of threads matters, and a
/// smaller fraction loses some of the rows that a larger one loses.
package struct DroppingExperts: ExpertExecutor {
    /// What is lost together.
    package enum Loss: Sendable, Hashable {
        /// Each token row by itself, with this probability.
        case rows(fraction: Double)

        /// A late call: with this probability, all rows of one pool in one layer of one step.
        case calls(fraction: Double, pools: Int)

        /// A host that answers nothing, in no layer, for a number of steps in a row; the probability is that a pool is
        /// in such a stall at a step.
        case stalls(fraction: Double, pools: Int, steps: Int)

        /// A dead host: these experts answer in no layer and no step.
        case missing(Set<Int>)
    }

    private let experts: any ExpertExecutor
    private let loss: Loss
    private let stacks: Set<Stack>
    private let expertCount: Int
    private let seed: UInt64
    private let reason: DropReason

    // The step of the model's next calls; it is what losses that last for steps are timed by.
    private var step: Int

    /// Puts a loss in front of experts.
    ///
    /// - Parameters:
    ///   - experts: Where the outputs come from; rows that they drop themselves keep their reason.
    ///   - loss: What is lost together and how often. Expert `e` belongs to pool `e * pools / expertCount`, as in a
    ///     sharded checkpoint.
    ///   - expertCount: Experts in each sparse layer.
    ///   - stacks: The stacks in which anything is lost.
    ///   - seed: Decides which rows are lost.
    ///   - reason: The reason that they are given.
    ///   - step: The step of the model's next calls.
    package init(
        _ experts: any ExpertExecutor,
        loss: Loss,
        expertCount: Int,
        stacks: Set<Stack> = [.encoder, .decoder],
        seed: UInt64 = 0,
        reason: DropReason = .timeout,
        step: Int = 0
    ) {
        self.experts = experts
        self.loss = loss
        self.expertCount = max(1, expertCount)
        self.stacks = stacks
        self.seed = seed
        self.reason = reason
        self.step = step
    }

    /// The same losses at another step.
    ///
    /// - Parameter step: The step of the model's next calls.
    /// - Returns: Experts with that step's losses.
    package func at(step: Int) -> DroppingExperts {
        var other = self
        other.step = step
        return other
    }

    /// Starts a layer's work at the experts and decides which of its rows will be lost.
    ///
    /// - Parameter request: The layer's work.
    /// - Returns: A handle for the outputs that are not lost.
    package func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
        let pending = self.experts.begin(request)
        guard self.stacks.contains(request.layer.stack) else {
            return pending
        }
        let lost = self.lostRows(of: request)
        return lost.contains(true)
            ? LossyPendingExperts(inner: pending, lost: lost, reason: self.reason, rowByteCount: request.rowByteCount)
            : pending
    }

    /// For each row of the plan, whether its output is lost.
    private func lostRows(of request: ExpertLayerRequest) -> [Bool] {
        let layer = request.layer
        let step = self.step
        var lost: [Bool] = []
        lost.reserveCapacity(request.plan.rowCount)
        for group in request.plan.groups {
            switch self.loss {
            case .rows(let fraction):
                for row in lost.count..<(lost.count + group.rows) {
                    let token = Int(request.plan.sources[row])
                    lost.append(self.draw(layer, step: step, what: token) < fraction)
                }
                continue
            case .calls(let fraction, let pools):
                let isLost = self.draw(layer, step: step, what: self.pool(group.expert, of: pools)) < fraction
                lost.append(contentsOf: repeatElement(isLost, count: group.rows))
            case .stalls(let fraction, let pools, let steps):
                let pool = self.pool(group.expert, of: pools)
                // Each pool's time is cut into stretches with the pool's own offsets.
                let length = max(1, steps)
                let shift = Int(self.draw(nil, step: 0, what: pool) * Double(length))
                let isLost = self.draw(nil, step: 1 + (step + shift) / length, what: pool) < fraction
                lost.append(contentsOf: repeatElement(isLost, count: group.rows))
            case .missing(let experts):
                lost.append(contentsOf: repeatElement(experts.contains(group.expert), count: group.rows))
            }
        }
        return lost
    }

    private func pool(_ expert: Int, of pools: Int) -> Int {
        expert * max(1, pools) / self.expertCount
    }

    /// A number within 0..<1 that belongs to a place and a time.
    private func draw(_ layer: SparseLayer?, step: Int, what: Int) -> Double {
        var place: UInt64 = 0
        if let layer {
            place = UInt64(1 + 2 * layer.block + (layer.stack == .decoder ? 1 : 0))
        }
        return Philox.uniform(
            seed: self.seed,
            sequence: place << 32 | UInt64(UInt32(truncatingIfNeeded: what)),
            step: UInt64(bitPattern: Int64(step))
        )
    }
}

/// Experts' work, some rows of which will not arrive.
private struct LossyPendingExperts: PendingExperts {
    let inner: any PendingExperts
    let lost: [Bool]
    let reason: DropReason
    let rowByteCount: Int

    var isReady: Bool {
        self.inner.isReady
    }

    func wait() throws -> ExpertOutputs {
        let outputs = try self.inner.wait()
        var result = ExpertOutputs(chunks: [], dropped: outputs.dropped)
        for chunk in outputs.chunks {
            var start = chunk.rows.lowerBound
            while start < chunk.rows.upperBound {
                let isLost = self.lost[start]
                var end = start + 1
                while end < chunk.rows.upperBound, self.lost[end] == isLost {
                    end += 1
                }
                if isLost {
                    result.dropped.append(.init(rows: start..<end, reason: self.reason))
                } else {
                    let first = (start - chunk.rows.lowerBound) * self.rowByteCount
                    let bytes = first..<(first + (end - start) * self.rowByteCount)
                    result.chunks.append(
                        .init(rows: start..<end, storage: PartOfOutputs(whole: chunk.storage, bytes: bytes))
                    )
                }
                start = end
            }
        }
        return result
    }

    func cancel() {
        self.inner.cancel()
    }
}

/// Some of the rows of a chunk.
private struct PartOfOutputs: ExpertOutputStorage {
    let whole: any ExpertOutputStorage
    let bytes: Range<Int>

    func withUnsafeBytes(_ body: (UnsafeRawBufferPointer) -> Void) {
        self.whole.withUnsafeBytes { all in
            // The model reports a chunk that is too short: it checks every count.
            body(UnsafeRawBufferPointer(rebasing: all[self.bytes.clamped(to: all.indices)]))
        }
    }
}
