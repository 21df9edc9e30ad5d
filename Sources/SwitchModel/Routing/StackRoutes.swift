// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// Which way one sequence's tokens took through the sparse layers of one stack.
///
/// The arrays are token-major: token `t` at the sparse layer of index `l` is element `t * layers.count + l`, so that a
/// generation's steps are simply appended.
public struct StackRoutes: Sendable, Hashable {
    /// The stack's sparse layers, ascending.
    public let layers: [SparseLayer]

    /// The number of tokens.
    public private(set) var tokenCount = 0

    /// The expert that each token was sent to, or would have been if it had not been dropped.
    public private(set) var experts: [UInt16] = []

    /// The router's probability of that expert.
    public private(set) var probabilities: [Float] = []

    /// Why a token got no expert output; nil where it got one.
    public private(set) var reasons: [DropReason?] = []

    /// Whether, where these routes are given to the model, only their drops count and the routers choose the experts.
    ///
    /// Capacity then counts as the step's policy says, rows that were lost to hosts included.
    public var givesDropsOnly = false

    /// Routes of no tokens.
    ///
    /// - Parameter layers: The stack's sparse layers, ascending.
    public init(layers: [SparseLayer]) {
        self.layers = layers
    }

    /// Routes from elsewhere; nil if an array has another length.
    ///
    /// - Parameters:
    ///   - layers: The stack's sparse layers, ascending.
    ///   - tokenCount: The number of tokens.
    ///   - experts: An expert for each token and layer, token-major.
    ///   - probabilities: As many probabilities; none if they are not known.
    ///   - reasons: As many reasons; none if no token was dropped.
    public init?(
        layers: [SparseLayer],
        tokenCount: Int,
        experts: [UInt16],
        probabilities: [Float] = [],
        reasons: [DropReason?] = []
    ) {
        let (entries, overflow) = tokenCount.multipliedReportingOverflow(by: layers.count)
        guard !overflow, tokenCount >= 0, experts.count == entries,
            probabilities.isEmpty || probabilities.count == entries, reasons.isEmpty || reasons.count == entries
        else {
            return nil
        }
        self.layers = layers
        self.tokenCount = tokenCount
        self.experts = experts
        self.probabilities = probabilities.isEmpty ? [Float](repeating: 0, count: entries) : probabilities
        self.reasons = reasons.isEmpty ? [DropReason?](repeating: nil, count: entries) : reasons
    }

    /// Appends what a call of the model did with one of its inputs.
    ///
    /// - Parameters:
    ///   - record: The call's record, with the routers' decisions.
    ///   - input: The input's index in the call.
    public mutating func append(_ record: RoutingRecord, input: Int) {
        let tokens = record.tokens(ofInput: input)
        self.tokenCount += tokens.count
        for token in tokens {
            for layer in record.layers {
                self.experts.append(UInt16(clamping: layer.choices[token]))
                self.probabilities.append(layer.probabilities[token])
                self.reasons.append(layer.dropped[token])
            }
        }
    }

    /// Appends the routes of the tokens that follow.
    ///
    /// - Parameter other: Routes through the same layers.
    public mutating func append(_ other: StackRoutes) {
        precondition(other.layers == self.layers, "routes through other layers")
        self.tokenCount += other.tokenCount
        self.experts += other.experts
        self.probabilities += other.probabilities
        self.reasons += other.reasons
    }

    /// The routes of some of the tokens.
    ///
    /// - Parameter tokens: Which, all of them below ``tokenCount``.
    /// - Returns: The routes through the same layers.
    public func part(_ tokens: Range<Int>) -> StackRoutes {
        precondition(tokens.lowerBound >= 0 && tokens.upperBound <= self.tokenCount, "tokens \(tokens) of routes")
        let entries = (tokens.lowerBound * self.layers.count)..<(tokens.upperBound * self.layers.count)
        var part = StackRoutes(layers: self.layers)
        part.tokenCount = tokens.count
        part.experts = Array(self.experts[entries])
        part.probabilities = Array(self.probabilities[entries])
        part.reasons = Array(self.reasons[entries])
        part.givesDropsOnly = self.givesDropsOnly
        return part
    }

    /// What keeps a stack from taking these routes for some tokens; nil if nothing does.
    ///
    /// - Parameters:
    ///   - layers: The stack's sparse layers.
    ///   - tokens: The number of tokens that will be computed.
    ///   - expertCount: Experts in each layer.
    /// - Returns: A sentence without its subject: `has 3 tokens, but ...`.
    public func fault(layers: [SparseLayer], tokens: Int, expertCount: Int) -> String? {
        guard self.layers == layers else {
            func list(_ layers: [SparseLayer]) -> String { "[\(layers.map(\.description).joined(separator: ", "))]" }
            return "names the sparse layers \(list(self.layers)); this model's are \(list(layers))"
        }
        // Through no layers, all tokens take the same way.
        guard layers.isEmpty || self.tokenCount == tokens else {
            return "has \(self.tokenCount) tokens; there are \(tokens) to compute"
        }
        if let index = self.experts.firstIndex(where: { Int($0) >= expertCount }) {
            return "sends token \(index / layers.count) to expert \(self.experts[index]) at "
                + "\(layers[index % layers.count]); the experts end at \(expertCount - 1)"
        }
        return nil
    }
}

/// Where a token goes whatever its router would choose.
struct GivenRoute: Sendable, Hashable {
    /// The expert; nil where the router chooses it and only a drop is given.
    var expert: Int32?

    /// Why the token gets no expert output; nil where it gets one.
    var reason: DropReason?
}

/// The given routes of a call's tokens, by sparse layer.
struct GivenRoutes: Sendable {
    private var layers: [SparseLayer: [GivenRoute?]] = [:]

    /// Lays out the routes of a call's inputs; nil if no input has routes.
    ///
    /// - Parameter inputs: Each input's routes, where it has some, and its number of tokens.
    init?(_ inputs: [(routes: StackRoutes?, tokens: Int)]) {
        guard let layers = inputs.lazy.compactMap({ $0.routes?.layers }).first else {
            return nil
        }
        for (index, layer) in layers.enumerated() {
            self.layers[layer] = inputs.flatMap { input -> [GivenRoute?] in
                guard let routes = input.routes else {
                    return [GivenRoute?](repeating: nil, count: input.tokens)
                }
                return (0..<input.tokens)
                    .map { token in
                        let entry = token * layers.count + index
                        let reason = routes.reasons[entry]
                        guard routes.givesDropsOnly else {
                            return GivenRoute(expert: Int32(routes.experts[entry]), reason: reason)
                        }
                        return reason.map { GivenRoute(expert: nil, reason: $0) }
                    }
            }
        }
    }

    /// For each token of the call its route through a layer, nil where the router chooses; nil where it always does.
    subscript(layer: SparseLayer) -> [GivenRoute?]? { self.layers[layer] }
}
