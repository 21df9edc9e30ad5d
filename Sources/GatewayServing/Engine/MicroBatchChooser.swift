// SPDX-License-Identifier: Apache-2.0

/// Chooses whether a decoder step runs as one batch or as two micro-batches that take turns: a pure machine fed with
/// the time each step took.
///
/// With two micro-batches one waits for experts while the other computes attention, but the gateway's weights are
/// read twice and more experts are called in total. Which way wins depends on the network, the processors and the
/// number of rows. So both are tried for a few steps at each batch size, the faster one is used, and the other is
/// tried again now and then.
struct MicroBatchChooser: Sendable {
    /// Steps for which each way is tried.
    static let trialSteps = 4

    /// Steps after which the slower way is tried again.
    static let stepsBetweenTrials = 512

    /// How much faster two micro-batches must be to be chosen.
    static let margin = 0.02

    /// Measurements for one batch size.
    private struct Size {
        /// The shortest of the last seconds for each way: one batch, two micro-batches.
        var recent: [[Double]] = [[], []]
        var sinceTrial = 0

        func seconds(_ way: Int) -> Double? {
            // The median of a few: a step lengthened by other work on the machine says nothing.
            let sorted = self.recent[way].sorted()
            return sorted.count < MicroBatchChooser.trialSteps ? nil : sorted[sorted.count / 2]
        }
    }

    private let overlap: EngineConfiguration.Overlap
    private var sizes: [Int: Size] = [:]

    /// - Parameter overlap: The configured mode.
    init(_ overlap: EngineConfiguration.Overlap) {
        self.overlap = overlap
    }

    /// Micro-batches for the next step.
    ///
    /// - Parameter rows: Decoder rows of the step.
    /// - Returns: 1 or 2.
    mutating func microBatches(rows: Int) -> Int {
        guard rows > 1 else {
            return 1
        }
        switch self.overlap {
        case .never: return 1
        case .always: return 2
        case .automatic: break
        }
        let size = self.sizes[Self.key(rows), default: Size()]
        guard let whole = size.seconds(0) else {
            return 1
        }
        guard let halves = size.seconds(1) else {
            return 2
        }
        return halves < whole * (1 - Self.margin) ? 2 : 1
    }

    /// Records a finished step.
    ///
    /// - Parameters:
    ///   - rows: Its decoder rows.
    ///   - microBatches: Its micro-batches.
    ///   - time: How long it took, without any other work done meanwhile.
    mutating func stepDone(rows: Int, microBatches: Int, time: Duration) {
        guard rows > 1, self.overlap == .automatic else {
            return
        }
        let way = microBatches > 1 ? 1 : 0
        let (seconds, attoseconds) = time.components
        let perRow = (Double(seconds) + Double(attoseconds) * 1e-18) / Double(rows)
        var size = self.sizes[Self.key(rows), default: Size()]
        size.recent[way].append(perRow)
        if size.recent[way].count > 2 * Self.trialSteps {
            size.recent[way].removeFirst()
        }
        size.sinceTrial += 1
        if size.sinceTrial >= Self.stepsBetweenTrials {
            // The other way's times are old by now; measure it again.
            size.sinceTrial = 0
            size.recent[1 - way] = []
        }
        self.sizes[Self.key(rows)] = size
    }

    /// The power of two at or above the rows: such batches are alike.
    private static func key(_ rows: Int) -> Int {
        Int.bitWidth - (rows - 1).leadingZeroBitCount
    }
}
