// SPDX-License-Identifier: Apache-2.0

/// What the load did between two points in time.
package struct LoadWindow: Sendable, Hashable {
    /// Tokens that came.
    package var tokens = 0
    /// How long it is, in seconds.
    package var seconds: Double
    /// The longest wait of a client for its next token, in seconds; first tokens count from their call.
    package var longestGap = 0.0
    /// The median and the 99th percentile of the time between two tokens of one stream, in seconds.
    package var medianGap = 0.0
    package var highGap = 0.0

    /// Collects the tokens of a stretch of time.
    ///
    /// - Parameters:
    ///   - samples: Tokens.
    ///   - from: Where it begins, since the record began.
    ///   - to: Where it ends.
    package init(_ samples: [TokenSample], from: Duration, to: Duration) {
        let start = Float(from.seconds)
        let end = Float(to.seconds)
        self.seconds = to.seconds - from.seconds
        var gaps: [Float] = []
        for sample in samples where sample.time >= start && sample.time < end {
            self.tokens += 1
            // A wait that began before the window says nothing about it beyond the part within.
            self.longestGap = max(self.longestGap, Double(min(sample.gap, sample.time - start)))
            if !sample.isFirst { gaps.append(sample.gap) }
        }
        gaps.sort()
        self.medianGap = Self.percentile(0.5, of: gaps)
        self.highGap = Self.percentile(0.99, of: gaps)
    }

    /// The longest wait for a token in a stretch of time, with waits that begin in it and end after it.
    ///
    /// - Parameters:
    ///   - samples: Tokens.
    ///   - from: Where the stretch begins, since the record began.
    ///   - to: Where it ends.
    /// - Returns: The longest wait in seconds, without what lies before the stretch.
    package static func longestWait(_ samples: [TokenSample], from: Duration, to: Duration) -> Double {
        let start = Float(from.seconds)
        let end = Float(to.seconds)
        return samples.filter { $0.time >= start && $0.time - $0.gap < end }
            .map { Double(min($0.gap, $0.time - start)) }
            .max() ?? 0
    }

    /// Tokens per second.
    package var rate: Double { self.seconds > 0 ? Double(self.tokens) / self.seconds : 0 }

    private static func percentile(_ fraction: Double, of sorted: [Float]) -> Double {
        guard !sorted.isEmpty else { return 0 }
        return Double(sorted[min(sorted.count - 1, Int(fraction * Double(sorted.count)))])
    }
}

extension Duration {
    /// The duration in seconds.
    package var seconds: Double {
        Double(self.components.seconds) + Double(self.components.attoseconds) * 1e-18
    }
}
