// SPDX-License-Identifier: Apache-2.0

import CommandKit
import SwitchyardProtos

/// The way of a sequence's tokens through one stack, as `generate --routes` prints it.
struct RoutesReport: Encodable, Equatable {
    /// The half of the model, as the protocol writes it.
    var stack: String
    /// The blocks with sparse layers.
    var layers: [UInt32]
    /// For each token the expert at each layer.
    var experts: [[Int]]
    /// For each token the router's probability of that expert at each layer.
    var probabilities: [[Float]]
    /// For each token the reason, at each layer, why it got no expert output, nil where it got one; nil if none was dropped.
    var dropReasons: [[String?]]?

    /// Reads a response's routes; nil if the arrays do not have the lengths that the numbers say.
    ///
    /// - Parameter routes: The message.
    init?(_ routes: Routes) {
        let width = routes.layers.count
        let (entries, overflow) = Int(routes.tokens).multipliedReportingOverflow(by: width)
        guard !overflow, routes.experts.count / 2 == entries, routes.experts.count % 2 == 0,
            routes.probabilities.count / 4 == entries, routes.probabilities.count % 4 == 0,
            routes.dropReasons.isEmpty || routes.dropReasons.count == entries
        else { return nil }
        func rows<Value>(_ value: (Int) -> Value) -> [[Value]] {
            width == 0 ? [] : (0..<Int(routes.tokens)).map { token in (0..<width).map { value(token * width + $0) } }
        }
        self.stack = GenerationReport.protocolName(routes.stack)
        self.layers = routes.layers
        self.experts = rows { Int(routes.experts[2 * $0]) | Int(routes.experts[2 * $0 + 1]) << 8 }
        self.probabilities = rows { entry in
            Float(bitPattern: (0..<4).reduce(0) { $0 | UInt32(routes.probabilities[4 * entry + $1]) << (8 * $1) })
        }
        if !routes.dropReasons.isEmpty {
            self.dropReasons = rows { entry in
                let number = routes.dropReasons[entry]
                guard number > 0 else { return nil }
                return WireDropReason(rawValue: UInt32(number)).map(GenerationReport.protocolName) ?? "\(number)"
            }
        }
    }

    /// A table with a row for each token and a column for each sparse layer: `5 0.912`, or `5 0.912 TIMEOUT` if dropped.
    ///
    /// - Parameter names: What each row begins with, by token: a title, and the names.
    /// - Returns: The table.
    func table(_ names: (title: String, tokens: [String])) -> String {
        guard !self.layers.isEmpty else { return "the \(self.stack.lowercased()) has no sparse layers" }
        var table = TextTable(
            [(names.title, .right)] + self.layers.map { ("\(self.stack.lowercased()) \($0)", .left) }
        )
        for (token, experts) in self.experts.enumerated() {
            let name = names.tokens.indices.contains(token) ? names.tokens[token] : "\(token)"
            let cells = experts.indices.map { layer in
                let reason = self.dropReasons?[token][layer].map { " \($0)" } ?? ""
                return "\(experts[layer]) \(Self.rounded(self.probabilities[token][layer]))\(reason)"
            }
            table.add([name] + cells)
        }
        return table.text
    }

    /// Three digits after the point.
    private static func rounded(_ probability: Float) -> String {
        let thousandths = probability.isFinite ? Int((probability * 1_000).rounded()) : 0
        let digits = "\(thousandths % 1_000)"
        return "\(thousandths / 1_000)." + String(repeating: "0", count: 3 - digits.count) + digits
    }

    /// The tables of a response: the input's, then each generation's.
    ///
    /// - Parameter response: A response with routes.
    /// - Returns: The text; empty if the response has none.
    static func text(_ response: GenerateResponse) -> String {
        var parts: [String] = []
        if let encoder = response.encoderRoutes.flatMap(Self.init) {
            parts.append(encoder.table(("input", encoder.experts.indices.map { "\($0)" })))
        }
        for generation in response.generations {
            if let decoder = generation.decoderRoutes.flatMap(Self.init) {
                // Of a prompt's or a decoder prefix's tokens only the last one chose the answer's first token.
                let given = max(0, decoder.experts.count - generation.tokenIDs.count)
                let names = Array(repeating: "", count: given) + generation.tokenIDs.map { "\($0)" }
                parts.append(decoder.table(("chosen", names)))
            }
        }
        return parts.joined(separator: "\n\n")
    }
}
