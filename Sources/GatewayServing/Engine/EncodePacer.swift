// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// Keeps the encoder's share of a step within a bound while others decode: a pure machine fed with the time each
/// piece took.
///
/// A piece is about one block of the model for all tokens of an encoder run. Every step takes at least one piece, so
/// that encoding always makes progress.
struct EncodePacer: Sendable {
    /// By how much the encoder may lengthen a step.
    let bound: Duration

    /// Moving average of a piece's seconds for each token; nil before the first piece.
    private var secondsPerToken: Double?
    /// Time that the pieces of this step took.
    private var spent = Duration.zero
    private var pieces = 0

    /// Weight of a new measurement against all earlier ones.
    private static let weight = 0.2

    /// - Parameter bound: By how much the encoder may lengthen a step.
    init(bound: Duration) {
        self.bound = bound
    }

    /// The largest encoder run, in tokens, of which two pieces fit into a step; nil until something is measured.
    var tokensPerRun: Int? {
        self.secondsPerToken.map {
            max(1, Int(clamping: Int64((self.bound.inSeconds / 2 / max($0, 1e-9)).rounded(.down))))
        }
    }

    /// Starts a step.
    mutating func stepBegan() {
        self.spent = .zero
        self.pieces = 0
    }

    /// Whether this step may run a piece.
    ///
    /// - Parameter tokens: Tokens of its run.
    /// - Returns: Whether it is the first one, or will probably stay within the bound.
    func mayRun(tokens: Int) -> Bool {
        guard self.pieces > 0 else {
            return true
        }
        let expected = Double(tokens) * (self.secondsPerToken ?? 0)
        return self.spent.inSeconds + expected <= self.bound.inSeconds
    }

    /// Records a finished piece.
    ///
    /// - Parameters:
    ///   - tokens: Tokens of its run, at least 1.
    ///   - time: How long it took.
    mutating func pieceDone(tokens: Int, time: Duration) {
        self.pieces += 1
        self.spent += time
        let measured = max(time, .zero).inSeconds / Double(max(tokens, 1))
        self.secondsPerToken = self.secondsPerToken.map { $0 + (measured - $0) * Self.weight } ?? measured
    }
}

extension Duration {
    /// The duration as seconds.
    fileprivate var inSeconds: Double {
        let (seconds, attoseconds) = self.components
        return Double(seconds) + Double(attoseconds) * 1e-18
    }
}
