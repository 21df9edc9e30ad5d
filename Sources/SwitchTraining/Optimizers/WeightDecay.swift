// SPDX-License-Identifier: Apache-2.0

/// How much each tensor decays, apart from its gradient.
///
/// By default norms, relative position biases and other biases do not decay, which are the ones that transformers' `Trainer`
/// exempts (`get_parameter_names` with its patterns for norms and `bias`).
public struct WeightDecay: Sendable, Hashable, Codable {
    /// Tensors with a decay of their own.
    public struct Group: Sendable, Hashable, Codable {
        /// The names: `*` stands for any characters, none included.
        public var pattern: String

        /// The decay.
        public var value: Double

        /// Creates a group.
        ///
        /// - Parameters:
        ///   - pattern: The names: `*` stands for any characters, none included.
        ///   - value: The decay.
        public init(pattern: String, value: Double) {
            self.pattern = pattern
            self.value = value
        }
    }

    /// The decay of tensors that neither a group nor an exemption names.
    public var value: Double

    /// Tensors with a decay of their own; the first group whose pattern fits counts, before any exemption.
    public var groups: [Group]

    /// Creates a rule.
    ///
    /// - Parameters:
    ///   - value: The decay of tensors that are not exempt.
    ///   - groups: Tensors with a decay of their own.
    public init(_ value: Double = 0, groups: [Group] = []) {
        self.value = value
        self.groups = groups
    }

    /// The decay of each tensor.
    ///
    /// - Parameter layout: The tensors.
    /// - Returns: A number for each entry.
    /// - Throws: `invalidSettings` for a decay that is negative or not finite, or a pattern that fits no tensor.
    func values(for layout: ParameterLayout) throws(TrainingError) -> [Double] {
        for value in [self.value] + self.groups.map(\.value) where !(value >= 0 && value < 1e6) {
            throw TrainingError(
                code: .invalidSettings,
                message: "a weight decay is \(value); it must be 0 or more, and is usually 0.01 to 0.1"
            )
        }
        for group in self.groups
        where !layout.entries.contains(where: { Self.fits(group.pattern, $0.name) }) {
            throw TrainingError(
                code: .invalidSettings,
                message:
                    "no tensor has a name like \"\(group.pattern)\"; the first is \(layout.entries.first?.name ?? "-")"
            )
        }
        return layout.entries.map { entry in
            if let group = self.groups.first(where: { Self.fits($0.pattern, entry.name) }) {
                return group.value
            }
            return Self.isExempt(entry) ? 0 : self.value
        }
    }

    private static func isExempt(_ entry: ParameterLayout.Entry) -> Bool {
        switch entry.kind {
        case .norm, .relativeBias: true
        default: entry.name.hasSuffix(".bias")
        }
    }

    /// Whether a name fits a pattern.
    static func fits(_ pattern: String, _ name: String) -> Bool {
        let name = Array(name.utf8)
        let pattern = Array(pattern.utf8)
        var position = 0
        var next = 0
        // The last star, and where its characters end so far: one step back is enough, since stars are alike.
        var star: (next: Int, position: Int)?
        while position < name.count {
            if next < pattern.count, pattern[next] == UInt8(ascii: "*") {
                next += 1
                star = (next, position)
            } else if next < pattern.count, pattern[next] == name[position] {
                next += 1
                position += 1
            } else if let last = star {
                star = (last.next, last.position + 1)
                next = last.next
                position = last.position + 1
            } else {
                return false
            }
        }
        return pattern[next...].allSatisfy { $0 == UInt8(ascii: "*") }
    }
}
