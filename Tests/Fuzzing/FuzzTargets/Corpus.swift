// SPDX-License-Identifier: Apache-2.0

/// The inputs that a run begins with and adds to.
public struct InputPool: Sendable {
    /// The inputs.
    public private(set) var inputs: [[UInt8]] = []
    private var summaries: Set<UInt64> = []
    private let limit: Int

    /// Creates an empty pool.
    ///
    /// - Parameter limit: The most inputs to keep; further ones take the place of chance ones.
    public init(limit: Int = 8_192) {
        self.limit = limit
    }

    /// Adds an input to begin with, whatever it does.
    ///
    /// - Parameter input: The input.
    public mutating func add(seed input: [UInt8]) {
        self.inputs.append(input)
    }

    /// Adds an input that went a way that none before it went.
    ///
    /// - Parameters:
    ///   - input: The input.
    ///   - summary: What ``FuzzTarget/run(_:)`` said of it.
    ///   - random: Where the place comes from once the pool is full.
    /// - Returns: Whether the summary was new.
    @discardableResult
    public mutating func add(_ input: [UInt8], summary: UInt64, _ random: inout SplitMix64) -> Bool {
        // Summaries of long inputs are nearly all new; beyond this number, only short ones are worth keeping.
        guard self.summaries.count < 1 << 20, self.summaries.insert(summary).inserted else { return false }
        if self.inputs.count < self.limit {
            self.inputs.append(input)
        } else {
            self.inputs[random.below(self.inputs.count)] = input
        }
        return true
    }
}

extension FuzzTarget {
    /// Makes an input smaller while it still breaks the same property.
    ///
    /// - Parameters:
    ///   - input: An input that breaks a property.
    ///   - finding: The finding that it leads to.
    /// - Returns: An input that is not longer and breaks the same property.
    public func minimized(_ input: [UInt8], finding: FuzzFinding) -> [UInt8] {
        var best = input
        var step = max(1, best.count / 2)
        while true {
            var start = 0
            var isSmaller = false
            while start < best.count {
                var candidate = best
                candidate.removeSubrange(start..<min(best.count, start + step))
                if self.breaks(finding.property, candidate) {
                    best = candidate
                    isSmaller = true
                } else {
                    start += step
                }
            }
            if step > 1 {
                step /= 2
            } else if !isSmaller {
                return best
            }
        }
    }

    private func breaks(_ property: String, _ input: [UInt8]) -> Bool {
        do throws(FuzzFinding) {
            _ = try self.run(input)
            return false
        } catch {
            return error.property == property
        }
    }
}
