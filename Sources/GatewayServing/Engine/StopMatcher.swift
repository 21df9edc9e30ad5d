// SPDX-License-Identifier: Apache-2.0

/// Finds the first stop string in text that arrives in pieces.
///
/// Text that may be the start of a stop string is held back until that is decided, so that shown text is never taken
/// back. The text ends before the stop string: the stop string itself is cut off. Strings are compared byte by byte
/// in UTF-8, ignoring canonical equivalence.
struct StopMatcher: Sendable {
    /// The result of a piece of text.
    struct Output: Sendable, Equatable {
        /// Text that can be shown.
        var text: String
        /// Whether a stop string is complete: nothing comes after this output's text.
        var isStopped: Bool
    }

    private let stops: [[UInt8]]
    private var held: [UInt8] = []
    private var isStopped = false

    /// Creates a matcher.
    ///
    /// - Parameter stops: The stop strings; empty ones are ignored.
    init(stops: [String]) {
        self.stops = stops.map { Array($0.utf8) }.filter { !$0.isEmpty }
    }

    /// Adds the next piece.
    ///
    /// - Parameter text: Whole code points.
    /// - Returns: The text that can be shown, and whether a stop string is complete.
    mutating func feed(_ text: String) -> Output {
        guard !self.isStopped else {
            return Output(text: "", isStopped: true)
        }
        guard !self.stops.isEmpty else {
            return Output(text: text, isStopped: false)
        }
        self.held.append(contentsOf: text.utf8)
        if let start = self.firstMatch() {
            self.isStopped = true
            defer { self.held = [] }
            return Output(text: String(decoding: self.held[..<start], as: UTF8.self), isStopped: true)
        }
        let undecided = self.undecidedSuffix()
        let shown = String(decoding: self.held[..<(self.held.count - undecided)], as: UTF8.self)
        self.held.removeFirst(self.held.count - undecided)
        return Output(text: shown, isStopped: false)
    }

    /// Ends the text.
    ///
    /// - Returns: The text that was held back.
    mutating func finish() -> String {
        defer { self.held = [] }
        return String(decoding: self.held, as: UTF8.self)
    }

    /// Where the earliest stop string starts.
    private func firstMatch() -> Int? {
        self.held.indices.first { start in
            self.stops.contains { stop in self.held[start...].starts(with: stop) }
        }
    }

    /// The length of the longest suffix of the held text that is a prefix of a stop string.
    private func undecidedSuffix() -> Int {
        let longest = self.stops.map(\.count).max() ?? 0
        for length in stride(from: min(self.held.count, longest - 1), to: 0, by: -1) {
            let suffix = self.held.suffix(length)
            if self.stops.contains(where: { $0.count > length && $0.starts(with: suffix) }) {
                return length
            }
        }
        return 0
    }
}
