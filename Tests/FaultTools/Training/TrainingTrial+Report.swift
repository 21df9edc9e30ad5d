// SPDX-License-Identifier: Apache-2.0

internal import Foundation

extension TrainingTrial {
    /// A host that took over a state, repeated what came since, and was of use again.
    package struct Recovery: Sendable, Hashable {
        /// Steps and calls that it repeated.
        package var steps: Int
        package var calls: Int
        /// Seconds until it had taken over the state.
        package var load: Double
        /// Seconds from then until it could compute the current step's rows.
        package var replay: Double
        /// Seconds that the same calls took when they were first made, added up.
        package var firstCalls: Double
        /// Seconds from the first of them to the last answer, when they were first made.
        package var firstSteps: Double

        /// The repetition over the same steps when they were first made; nil where nothing was repeated.
        package var ratio: Double? { self.calls > 0 && self.firstSteps > 0 ? self.replay / self.firstSteps : nil }
        /// The repetition over what hosts took for the same calls when they were first made.
        package var callRatio: Double? { self.calls > 0 && self.firstCalls > 0 ? self.replay / self.firstCalls : nil }
    }

    /// The outcomes as a table.
    ///
    /// - Parameter outcomes: The outcomes.
    /// - Returns: Markdown.
    package static func markdown(_ outcomes: [Outcome]) -> String {
        let titles = ["Fault", "Replica", "Times", "Seconds", "Throughput", "Examples", "Weights"]
        let rows = outcomes.map { outcome in
            [
                outcome.fault.title, outcome.replicas > 1 ? "yes" : "no", "\(outcome.times)",
                Figure.decimal(outcome.seconds, 1), outcome.throughput.map { Figure.percent($0) } ?? "100 %",
                "\(outcome.examples.taken) of \(outcome.examples.expected)",
                (outcome.isSame ? "same bits" : "OTHER \(outcome.status)")
                    + (outcome.fault == .flip ? ", \(outcome.found) found" : ""),
            ]
        }
        let rule = ["---", "---", "---:", "---:", "---:", "---:", "---"]
        return ([titles, rule] + rows).map { "| \($0.joined(separator: " | ")) |\n" }.joined()
    }

    /// How hosts became of use again, as a table.
    ///
    /// - Parameter outcomes: The outcomes.
    /// - Returns: Markdown; empty where no host did.
    package static func recoveries(_ outcomes: [Outcome]) -> String {
        let titles = [
            "Fault", "Replica", "Recoveries", "State, s", "Repeated calls", "Repeated in, s", "Of their steps",
            "Of their calls",
        ]
        func text(_ values: [Double]) -> String {
            let sorted = values.sorted()
            guard let least = sorted.first, let most = sorted.last else { return "" }
            let median = (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
            return "\(Figure.decimal(median, 2)) (\(Figure.decimal(least, 2)) to \(Figure.decimal(most, 2)))"
        }
        let rows = outcomes.filter { outcome in outcome.fault != .calm && !outcome.recoveries.isEmpty }
            .map { outcome in
                let recoveries = outcome.recoveries
                return [
                    outcome.fault.title, outcome.replicas > 1 ? "yes" : "no", "\(recoveries.count)",
                    text(recoveries.map(\.load)), text(recoveries.map { Double($0.calls) }),
                    text(recoveries.map(\.replay)),
                    text(recoveries.compactMap(\.ratio)), text(recoveries.compactMap(\.callRatio)),
                ]
            }
        guard !rows.isEmpty else { return "" }
        let rule = ["---", "---"] + Array(repeating: "---:", count: titles.count - 2)
        return ([titles, rule] + rows).map { "| \($0.joined(separator: " | ")) |\n" }.joined()
    }
}

/// What a run said of itself last.
struct TrainingStatusFile {
    private let shards: [[String: Any]]

    /// Reads it; nothing where there is none.
    ///
    /// - Parameter folder: The run's folder.
    init(folder: String) {
        let data = FileManager.default.contents(atPath: "\(folder)/status.json") ?? Data()
        let status = (try? JSONSerialization.jsonObject(with: data)) as? [String: Any]
        self.shards = status?["shards"] as? [[String: Any]] ?? []
    }

    /// Memory that was found changed, by hosts themselves and by comparison of replicas.
    var changes: Int {
        self.shards.flatMap { $0["replicas"] as? [[String: Any]] ?? [] }
            .reduce(0) { sum, replica in
                sum + (replica["memory_changes"] as? Int ?? 0) + (replica["differences"] as? Int ?? 0)
            }
    }

    /// How new hosts became of use, without the first states of a run.
    var recoveries: [TrainingTrial.Recovery] {
        self.shards.flatMap { $0["recoveries"] as? [[String: Any]] ?? [] }
            .compactMap { recovery in
                func seconds(_ key: String) -> Double { (recovery[key] as? NSNumber)?.doubleValue ?? 0 }
                guard let step = recovery["step"] as? Int, step > 0, let steps = recovery["steps"] as? Int,
                    let calls = recovery["calls"] as? Int
                else { return nil }
                return TrainingTrial.Recovery(
                    steps: steps,
                    calls: calls,
                    load: seconds("load_seconds"),
                    replay: seconds("replay_seconds"),
                    firstCalls: seconds("first_calls_seconds"),
                    firstSteps: seconds("first_steps_seconds")
                )
            }
    }
}
