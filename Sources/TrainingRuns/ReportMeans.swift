// SPDX-License-Identifier: Apache-2.0

internal import SwitchTraining

/// Means over several steps, each counting by its target tokens.
struct ReportMeans {
    private let start: Double
    private var steps = 0
    private var inputTokens = 0
    private var targetTokens = 0
    private var correct: Int?
    private var loss = 0.0
    private var crossEntropy = 0.0
    private var divergence: Double?
    private var balance = 0.0
    private var routerZ = 0.0
    private var dropped = 0.0
    private var norm = 0.0
    private var layers: [RunReport.Balance] = []

    /// Begins.
    ///
    /// - Parameter seconds: Seconds of the whole run so far.
    init(seconds: Double) {
        self.start = seconds
    }

    mutating func add(_ step: StepReport) {
        let weight = Double(step.targetTokens)
        self.steps += 1
        self.inputTokens += step.inputTokens
        self.targetTokens += step.targetTokens
        if let correct = step.correctTokens { self.correct = (self.correct ?? 0) + correct }
        self.loss += weight * step.loss
        self.crossEntropy += weight * step.crossEntropy
        if let divergence = step.divergence { self.divergence = (self.divergence ?? 0) + weight * divergence }
        self.balance += weight * step.balance / Double(max(1, step.balanceGroups))
        self.routerZ += weight * step.routerZ
        self.dropped += weight * step.dropped
        self.norm += weight * step.gradientNorm
        if self.layers.isEmpty {
            self.layers = step.layers.map {
                .init(
                    layer: "\($0.layer)",
                    shares: Array(repeating: 0, count: $0.shares.count),
                    dropped: 0,
                    certainty: 0
                )
            }
        }
        for (index, layer) in step.layers.enumerated() {
            for (expert, share) in layer.shares.enumerated() { self.layers[index].shares[expert] += weight * share }
            self.layers[index].dropped += weight * layer.dropped
            self.layers[index].certainty = (self.layers[index].certainty ?? 0) + weight * layer.certainty
        }
    }

    /// Seconds that a step took.
    func stepTime(until seconds: Double) -> Double { (seconds - self.start) / Double(max(1, self.steps)) }

    func report(step: Int, seconds: Double) -> RunReport {
        let weight = Double(max(1, self.targetTokens))
        var report = RunReport(
            step: step,
            kind: .training,
            loss: self.loss / weight,
            crossEntropy: self.crossEntropy / weight,
            seconds: seconds,
            layers: self.layers.map { layer in
                .init(
                    layer: layer.layer,
                    shares: layer.shares.map { $0 / weight },
                    dropped: layer.dropped / weight,
                    certainty: layer.certainty.map { $0 / weight }
                )
            }
        )
        if !self.layers.isEmpty {
            report.balance = self.balance / weight
            report.routerZ = self.routerZ / weight
            report.dropped = self.dropped / weight
        }
        report.divergence = self.divergence.map { $0 / weight }
        report.gradientNorm = self.norm / weight
        report.accuracy = self.correct.map { Double($0) / weight }
        let taken = seconds - self.start
        if taken > 0 { report.tokensPerSecond = Double(self.inputTokens + self.targetTokens) / taken }
        return report
    }
}
