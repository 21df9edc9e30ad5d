// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// A sparse feed-forward sublayer: router, dispatch, experts wherever they are, combine.
struct SparseFeedForward: Sendable {
    let layer: SparseLayer
    let router: Router
    let checkpointCapacity: Int
    /// Whether an expert's output is multiplied by the router's probability.
    var scalesByProbability = true
    /// What a token over its expert's capacity gives.
    var droppedTokens = ModelConfiguration.DroppedTokens.zero

    /// The sublayer between its halves: the request to the experts, and what their answer is combined with.
    struct Out {
        fileprivate let residual: FloatMatrix
        /// The sublayer's normalised input, where tokens over capacity are passed on.
        fileprivate let passed: FloatMatrix?
        fileprivate let plan: DispatchPlan
        fileprivate let decision: Router.Decision
        /// Nil where no token is kept.
        fileprivate let pending: (any PendingExperts)?

        /// Whether the second half would run without waiting.
        var isReady: Bool {
            self.pending?.isReady ?? true
        }

        /// Cancels the second half.
        func cancel() {
            self.pending?.cancel()
        }
    }

    /// Computes the first half: routes the tokens, and sends those that are kept to their experts.
    ///
    /// - Parameters:
    ///   - input: `[tokens, d_model]`, the sublayer's normalised input.
    ///   - residual: `[tokens, d_model]`, the sublayer's input.
    ///   - step: The call of the model.
    ///   - record: Counts the tokens.
    /// - Returns: What the second half needs.
    func begin(
        _ input: FloatMatrix,
        residual: FloatMatrix,
        step: StepContext,
        record: inout RoutingRecord
    ) -> Out {
        let given = step.given?[self.layer]
        let memory = step.memory
        self.route(input, given: given, step: step, into: &memory.decision, record: &record)
        let experts = self.router.weights.outputs
        let policy = step.options.capacityPolicy
        memory.plan.sort(
            memory.decision.choices,
            probabilities: self.scalesByProbability ? memory.decision.probabilities : nil,
            sequences: step.sequences,
            given: given,
            expertCount: experts,
            limit: policy.limit(tokens: input.rows, experts: experts, checkpoint: self.checkpointCapacity),
            order: policy.order,
            layer: self.layer.block,
            counts: &memory.counts
        )
        record.noteRouted(sequences: step.sequences)
        let plan = memory.plan
        let passed = self.droppedTokens == .pass && !plan.overCapacity.isEmpty ? input : nil
        guard plan.rowCount > 0 else {
            return Out(residual: residual, passed: passed, plan: plan, decision: memory.decision, pending: nil)
        }
        let request = ExpertLayerRequest(
            layer: self.layer,
            plan: plan,
            hidden: input,
            sequences: step.sequences,
            memory: memory.executor
        )
        return Out(
            residual: residual,
            passed: passed,
            plan: plan,
            decision: memory.decision,
            pending: step.experts.begin(request)
        )
    }

    /// Asks the router, and keeps what losses are computed from where that is wanted.
    private func route(
        _ input: FloatMatrix,
        given: [GivenRoute?]?,
        step: StepContext,
        into decision: inout Router.Decision,
        record: inout RoutingRecord
    ) {
        guard step.options.collectRouterStatistics else {
            self.router(input, given: given, pool: step.pool, into: &decision)
            return
        }
        var statistics: [Int: RouterStatistics] = [:]
        let fresh = RouterStatistics(layer: self.layer, expertCount: self.router.weights.outputs)
        self.router(input, given: given, pool: step.pool, into: &decision) { token, scores, expert in
            statistics[Int(step.sequences[token]), default: fresh].add(scores, sentTo: expert)
        }
        for (sequence, statistics) in statistics {
            record.append(statistics, input: sequence)
        }
    }

    /// Computes the second half: `residual + p * expert(input)` for each token that an expert answered, the residual
    /// alone for the others.
    ///
    /// A token over capacity may count its input as its expert's output: `ModelConfiguration.droppedTokens`.
    ///
    /// - Parameters:
    ///   - out: The result of the first half.
    ///   - step: The call of the model.
    ///   - record: Counts what happened to the tokens.
    /// - Returns: `[tokens, d_model]`.
    /// - Throws: What the executor throws, and `ModelError` when its outputs do not cover the plan.
    func finish(_ out: Out, step: StepContext, record: inout RoutingRecord) throws -> FloatMatrix {
        let rows = out.residual.rows
        var reasons: [DropReason?] =
            step.options.collectRouting ? [DropReason?](repeating: nil, count: rows) : []
        func drop(_ row: Int32, _ reason: DropReason) {
            record.noteDrop(sequence: step.sequences[Int(row)], layer: self.layer, reason: reason)
            if !reasons.isEmpty {
                reasons[Int(row)] = reason
            }
        }
        for row in out.plan.droppedForCapacity {
            drop(row, .capacity)
        }
        for drop in out.plan.droppedAsGiven {
            let row = Int(drop.row)
            record.noteGivenDrop(sequence: step.sequences[row], layer: self.layer, reason: drop.reason)
            if !reasons.isEmpty {
                reasons[row] = drop.reason
            }
        }
        var output = out.residual
        if let pending = out.pending {
            // The experts' hosts may share the processors.
            if !pending.isReady { step.pool.rest() }
            let answer = try pending.wait()
            step.pool.expectWork()
            try self.requireCoverage(of: out.plan, by: answer, width: out.residual.columns, &step.memory.ranges)
            for range in answer.dropped {
                for row in range.rows {
                    drop(out.plan.sources[row], range.reason)
                }
            }
            output = self.combine(out.residual, plan: out.plan, outputs: answer, pool: step.pool)
        }
        if let passed = out.passed {
            output = self.pass(passed, decision: out.decision, plan: out.plan, onto: output, pool: step.pool)
        }
        if step.options.collectRouting {
            record.append(
                RoutingRecord.LayerRouting(
                    layer: self.layer,
                    choices: out.decision.choices,
                    probabilities: out.decision.probabilities,
                    dropped: reasons,
                    expertCount: self.router.weights.outputs
                )
            )
        }
        return output
    }

    /// `onto + p * input` for the tokens over capacity, the others' rows as they are.
    private func pass(
        _ input: FloatMatrix,
        decision: Router.Decision,
        plan: DispatchPlan,
        onto residual: FloatMatrix,
        pool: WorkPool
    ) -> FloatMatrix {
        let width = residual.columns
        let output = FloatMatrix.temporary(rows: residual.rows, columns: width)
        // The residual may be the sublayer's input, which others still read.
        output.pointer.update(from: residual.pointer, count: residual.rows * width)
        let over = plan.overCapacity
        WorkPool.share(over.count, width: width, among: pool) { indices in
            for index in indices {
                let row = Int(over[index])
                let target = output.pointer + row * width
                Residual.addScaled(
                    target,
                    input.pointer + row * width,
                    scale: self.scalesByProbability ? decision.probabilities[row] : 1,
                    count: width,
                    into: target
                )
            }
        }
        return output
    }

    private func combine(
        _ residual: FloatMatrix,
        plan: DispatchPlan,
        outputs: ExpertOutputs,
        pool: WorkPool
    ) -> FloatMatrix {
        let width = residual.columns
        let combined = FloatMatrix.temporary(rows: residual.rows, columns: width)
        // Each row is written once: here if no expert answered it, with its expert's answer otherwise.
        func keep(_ row: Int32) {
            let offset = Int(row) * width
            (combined.pointer + offset).update(from: residual.pointer + offset, count: width)
        }
        for row in plan.droppedForCapacity { keep(row) }
        for drop in plan.droppedAsGiven { keep(drop.row) }
        for range in outputs.dropped {
            for row in range.rows { keep(plan.sources[row]) }
        }
        for chunk in outputs.chunks {
            chunk.storage.withUnsafeBytes { bytes in
                guard let base = bytes.baseAddress else {
                    return
                }
                // No two rows of a plan have the same source.
                WorkPool.share(chunk.rows.count, width: width, among: pool) { indices in
                    for index in indices {
                        let row = chunk.rows.lowerBound + index
                        let offset = Int(plan.sources[row]) * width
                        Residual.addScaled(
                            residual.pointer + offset,
                            base + index * width * MemoryLayout<Float>.stride,
                            scale: plan.combineWeights[row],
                            count: width,
                            into: combined.pointer + offset
                        )
                    }
                }
            }
        }
        return combined
    }

    /// An executor is foreign code: its results are checked before they are used to read memory.
    ///
    /// - Parameters:
    ///   - plan: What was requested.
    ///   - outputs: What the executor gave.
    ///   - width: `d_model`.
    ///   - ranges: Memory for ranges of rows; what it holds does not matter.
    /// - Throws: `ModelError` where outputs and drops do not name each row once.
    private func requireCoverage(
        of plan: DispatchPlan,
        by outputs: ExpertOutputs,
        width: Int,
        _ ranges: inout [Range<Int>]
    ) throws(ModelError) {
        ranges.removeAll(keepingCapacity: true)
        for chunk in outputs.chunks {
            var count = 0
            chunk.storage.withUnsafeBytes { count = $0.count }
            guard count == chunk.rows.count * width * MemoryLayout<Float>.stride else {
                throw ModelError(
                    code: .invalidExpertOutputs,
                    message: "\(self.layer.stack) block \(self.layer.block): \(count) bytes of expert outputs for"
                        + " \(chunk.rows.count) rows of \(width) float32; fix the expert executor"
                )
            }
            ranges.append(chunk.rows)
        }
        for part in outputs.dropped { ranges.append(part.rows) }
        ranges.sort { $0.lowerBound < $1.lowerBound }
        var next = 0
        for range in ranges where !range.isEmpty {
            guard range.lowerBound == next else {
                break
            }
            next = range.upperBound
        }
        let total = ranges.reduce(0) { $0 + $1.count }
        guard next == plan.rowCount, total == plan.rowCount else {
            throw ModelError(
                code: .invalidExpertOutputs,
                message: "\(self.layer.stack) block \(self.layer.block): expert outputs and drops name \(total) rows of"
                    + " \(plan.rowCount), each of which must be named once; fix the expert executor"
            )
        }
    }
}
