// SPDX-License-Identifier: Apache-2.0

/// Makes a broken scenario small: faults and requests that do not matter are taken away, and the rule stays broken.
///
/// Delta debugging (A. Zeller, R. Hildebrandt, Simplifying and Isolating Failure-Inducing Input, 2002,
/// https://doi.org/10.1109/32.988498) over the faults, then over the requests. One deviation: only complements are
/// tried, since a part alone hardly ever breaks a rule that a whole cluster keeps.
package struct FaultShrinker {
    /// Scenarios that were run.
    package private(set) var runs = 0
    private let limit: Int
    private let broken: String
    private let judge: (FaultScenario) -> [String]

    /// Shrinks a scenario.
    ///
    /// - Parameters:
    ///   - scenario: A scenario that breaks a rule.
    ///   - limit: How many scenarios to run at most.
    /// - Returns: A scenario that breaks the same rule with no more faults and requests, and what it breaks; nil where the
    ///   scenario breaks none.
    package static func shrink(
        _ scenario: FaultScenario,
        limit: Int = 400
    ) -> (scenario: FaultScenario, violations: [String], runs: Int)? {
        Self.shrink(scenario, limit: limit) { FaultOracle($0).violations }
    }

    /// Shrinks a scenario by a judgement of the caller's.
    static func shrink(
        _ scenario: FaultScenario,
        limit: Int,
        judge: @escaping (FaultScenario) -> [String]
    ) -> (scenario: FaultScenario, violations: [String], runs: Int)? {
        guard let first = judge(scenario).first else { return nil }
        var shrinker = FaultShrinker(limit: limit, broken: Self.rule(first), judge: judge)
        var small = scenario
        small.faults = shrinker.minimal(small.faults) { faults in
            var candidate = small
            candidate.faults = faults
            return candidate
        }
        small.requests = shrinker.minimal(small.requests) { requests in
            var candidate = small
            candidate.requests = requests
            return candidate
        }
        return (small, judge(small), shrinker.runs)
    }

    private init(limit: Int, broken: String, judge: @escaping (FaultScenario) -> [String]) {
        self.limit = limit
        self.broken = broken
        self.judge = judge
    }

    /// A violation without its numbers: the same rule breaks with others in a smaller scenario.
    static func rule(_ violation: String) -> String {
        var text = violation
        if let range = text.firstRange(of: " ms: "), text.hasPrefix("at ") || text.hasPrefix("calm: at ") {
            text = (text.hasPrefix("calm: ") ? "calm: " : "") + text[range.upperBound...]
        }
        return String(text.filter { !$0.isNumber }.prefix(60))
    }

    /// The smallest list that was found, of those that still break the rule.
    private mutating func minimal<Item>(_ items: [Item], _ make: ([Item]) -> FaultScenario) -> [Item] {
        var items = items
        var parts = 2
        while !items.isEmpty, parts <= 2 * items.count {
            let size = max(1, (items.count + parts - 1) / parts)
            var isSmaller = false
            for start in stride(from: 0, to: items.count, by: size) where self.runs < self.limit {
                let rest = Array(items[..<start] + items[min(start + size, items.count)...])
                self.runs += 1
                guard let first = self.judge(make(rest)).first, Self.rule(first) == self.broken else { continue }
                items = rest
                isSmaller = true
                break
            }
            if self.runs >= self.limit { break }
            if isSmaller {
                parts = max(2, parts - 1)
            } else if size == 1 {
                break
            } else {
                parts *= 2
            }
        }
        return items
    }
}
