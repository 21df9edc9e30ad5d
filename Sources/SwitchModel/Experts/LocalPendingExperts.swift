// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes
internal import TensorKernels

/// A layer's work, done when it is waited for.
///
/// The object is used again for the next layer of the same rows.
final class LocalPendingExperts: PendingExperts, @unchecked Sendable {
    // Safety: belongs to the thread that begins a layer's work and waits for it.

    private var work: (request: ExpertLayerRequest, experts: LocalExperts)?
    private var held: [ExpertRows] = []
    /// The rows of the plan that are computed, consecutive ones together.
    private var runs: [Range<Int>] = []
    private var chunks: [ExpertOutputs.Chunk] = []

    /// Whether no work waits to be done.
    var isFree: Bool { self.work == nil }

    func begin(_ request: ExpertLayerRequest, experts: LocalExperts) {
        // Without its memory, in which this object is kept.
        let request = ExpertLayerRequest(
            layer: request.layer,
            plan: request.plan,
            hidden: request.hidden,
            sequences: request.sequences
        )
        self.work = (request, experts)
    }

    func wait() throws -> ExpertOutputs {
        guard let (request, experts) = self.work else {
            throw ExpertError(
                code: .notBegun,
                message: "no layer's work waits to be done: each is waited for once, so begin the layer again"
            )
        }
        // An object that is kept must not keep the experts.
        self.work = nil
        let dropped = self.divide(request, among: experts)
        let rows = self.held.reduce(0) { $0 + $1.rows }
        self.chunks.removeAll(keepingCapacity: true)
        guard rows > 0 else { return ExpertOutputs(chunks: [], dropped: dropped) }
        let width = request.hidden.columns
        let tokens = FloatMatrix.temporary(rows: rows, columns: width)
        let outputs = FloatMatrix.temporary(rows: rows, columns: width)
        var row = 0
        for run in self.runs {
            let first = row
            experts.share(run.count, width: width) { part in
                request.gather(
                    rows: (run.lowerBound + part.lowerBound)..<(run.lowerBound + part.upperBound),
                    into: UnsafeMutableRawPointer(tokens.pointer + (first + part.lowerBound) * width)
                )
            }
            row += run.count
            self.chunks.append(.init(rows: run, storage: MatrixOutputs(matrix: outputs, rows: first..<row)))
        }
        try experts.forward(
            layer: request.layer,
            groups: self.held,
            tokens: tokens.pointer,
            outputs: outputs.pointer
        )
        return ExpertOutputs(chunks: self.chunks, dropped: dropped)
    }

    /// Finds the groups whose experts are held.
    ///
    /// - Returns: The rows of the others.
    private func divide(_ request: ExpertLayerRequest, among experts: LocalExperts) -> [ExpertOutputs.Dropped] {
        self.held.removeAll(keepingCapacity: true)
        self.runs.removeAll(keepingCapacity: true)
        var dropped: [ExpertOutputs.Dropped] = []
        var start = 0
        for group in request.plan.groups {
            let rows = start..<(start + group.rows)
            start = rows.upperBound
            guard experts.holds(request.layer, expert: group.expert) else {
                dropped.append(.init(rows: rows, reason: .unavailable))
                continue
            }
            self.held.append(group)
            if let last = self.runs.last, last.upperBound == rows.lowerBound {
                self.runs[self.runs.count - 1] = last.lowerBound..<rows.upperBound
            } else {
                self.runs.append(rows)
            }
        }
        return dropped
    }

    /// Does nothing, from whichever thread: the waiting thread itself computes.
    func cancel() {}
}
