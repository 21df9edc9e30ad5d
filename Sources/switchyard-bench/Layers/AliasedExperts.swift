// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import CommandKit
import Foundation
import SwitchModel
import SwitchyardTypes
import Synchronization
import TensorKernels

/// Many experts that share the weights of few: expert `e` computes with the weights of expert `e % count`.
///
/// It measures what more experts cost without holding their weights.
final class AliasedExperts: ExpertExecutor {
    /// Which weights a step reads.
    enum Reading: String, Sendable, CaseIterable {
        /// Each of a step's experts reads its weights, as if they were its own.
        case own = "each expert's own"
        /// Experts that share weights are computed as one, so that a step reads what it would with few experts.
        case shared = "as with the fewest experts"
    }

    private let experts: LocalExperts
    private let count: Int
    private let reading: Reading
    private let spent = Mutex<(time: Duration, groups: Int, layers: Int)>((.zero, 0, 0))

    /// Puts many experts on few.
    ///
    /// - Parameters:
    ///   - experts: The few.
    ///   - count: How many of them each layer has.
    ///   - reading: Which weights a step reads.
    init(_ experts: LocalExperts, count: Int, reading: Reading) {
        self.experts = experts
        self.count = count
        self.reading = reading
    }

    /// The time spent in experts since the last call of this function.
    ///
    /// - Returns: Seconds, and the different experts that a layer's tokens went to on average.
    func takeSpent() -> (seconds: Double, experts: Double) {
        self.spent.withLock { spent in
            defer { spent = (.zero, 0, 0) }
            return (spent.time.inSeconds, spent.layers > 0 ? Double(spent.groups) / Double(spent.layers) : 0)
        }
    }

    func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
        Pending(owner: self, request: request)
    }

    private struct Pending: PendingExperts {
        let owner: AliasedExperts
        let request: ExpertLayerRequest

        func wait() throws -> ExpertOutputs { try self.owner.compute(self.request) }

        func cancel() {}
    }

    private func compute(_ request: ExpertLayerRequest) throws -> ExpertOutputs {
        let start = ContinuousClock.now
        var parts: [(expert: Int, rows: Range<Int>)] = []
        var row = 0
        for group in request.plan.groups {
            parts.append((group.expert % self.count, row..<(row + group.rows)))
            row += group.rows
        }
        var groups: [ExpertRows] = []
        if self.reading == .shared {
            parts.sort { $0.expert < $1.expert }
        }
        for part in parts {
            if self.reading == .shared, groups.last?.expert == part.expert {
                groups[groups.count - 1].rows += part.rows.count
            } else {
                groups.append(ExpertRows(expert: part.expert, rows: part.rows.count))
            }
        }
        let width = request.hidden.columns
        let tokens = FloatMatrix(uninitializedRows: row, columns: width)
        let outputs = FloatMatrix(uninitializedRows: row, columns: width)
        var chunks: [ExpertOutputs.Chunk] = []
        var first = 0
        for part in parts {
            request.gather(rows: part.rows, into: UnsafeMutableRawPointer(tokens.pointer + first * width))
            let rows = first..<(first + part.rows.count)
            chunks.append(.init(rows: part.rows, storage: RowsOfMatrix(matrix: outputs, rows: rows)))
            first = rows.upperBound
        }
        try self.experts.forward(layer: request.layer, groups: groups, tokens: tokens.pointer, outputs: outputs.pointer)
        let time = start.duration(to: .now)
        let touched = request.plan.groups.count
        self.spent.withLock { $0 = ($0.time + time, $0.groups + touched, $0.layers + 1) }
        return ExpertOutputs(chunks: chunks)
    }
}

/// Some rows of a matrix as a layer's outputs.
private struct RowsOfMatrix: ExpertOutputStorage {
    let matrix: FloatMatrix
    let rows: Range<Int>

    func withUnsafeBytes(_ body: (UnsafeRawBufferPointer) -> Void) {
        withExtendedLifetime(self.matrix) {
            let columns = self.matrix.columns
            let start = UnsafeRawPointer(self.matrix.pointer + self.rows.lowerBound * columns)
            body(UnsafeRawBufferPointer(start: start, count: self.rows.count * columns * MemoryLayout<Float>.stride))
        }
    }
}
