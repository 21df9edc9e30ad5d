// SPDX-License-Identifier: Apache-2.0

public import SwitchModel
internal import SwitchyardTypes

/// What a request wants of the routers: to know what they did, or to tell them what to do.
public struct RoutingOptions: Sendable {
    /// Whether the answer says which way every token took.
    public var returnsRoutes = false

    /// Whether the answer has what the routers' losses are computed from.
    public var returnsStatistics = false

    /// Whether the answer says which way every row of every step took, as a receipt does.
    public var returnsSteps = false

    /// The input's way through the encoder; nil if the routers choose it.
    public var encoderRoutes: StackRoutes?

    /// The way of a score's target through the decoder; nil if the routers choose it.
    public var decoderRoutes: StackRoutes?

    /// For each of a generation's first steps, and for each of its rows, what is given; nil where the routers choose.
    ///
    /// A step with another number of rows is computed as if nothing were given.
    public var steps: [[StackRoutes?]] = []

    /// Whether the routers' decisions have to be collected.
    var isCollected: Bool { self.returnsRoutes || self.returnsSteps }

    /// Nothing special.
    public init() {}
}

/// What a request's routers did, as far as it asked.
public struct EngineRouting: Sendable {
    /// The input's way through the encoder.
    public var encoder: StackRoutes?

    /// The way through the decoder of each returned sequence, or of the target of a score.
    public var decoders: [StackRoutes] = []

    /// One entry for each sparse layer, the encoder's first.
    public var statistics: [RouterStatistics] = []

    /// For each call of the decoder the way of each of the request's rows, where every step was asked for.
    public var steps: [[StackRoutes]] = []
}

/// Collects what the routers did with one request.
struct RoutingBook: Sendable {
    private let options: RoutingOptions
    private var encoder: StackRoutes?
    /// The way of a prompt's tokens, until the first step takes them over.
    private var prompt: StackRoutes?
    /// For each call of the decoder the routes of each of the request's rows.
    private var steps: [[StackRoutes]] = []
    private var statistics: [RouterStatistics] = []

    /// - Parameter options: What to collect.
    init(_ options: RoutingOptions) {
        self.options = options
    }

    /// Adds what a call of the model did with the request's inputs.
    ///
    /// - Parameters:
    ///   - record: The call's record.
    ///   - inputs: The request's inputs in the call.
    ///   - stack: The half of the model.
    ///   - isPrompt: Whether these are the tokens of a prompt, which the decoder takes before the first step.
    mutating func add(_ record: RoutingRecord, inputs: Range<Int>, stack: Stack, isPrompt: Bool = false) {
        if self.options.returnsStatistics {
            for input in inputs {
                self.statistics += record.statistics[input] ?? []
            }
        }
        guard self.options.isCollected else {
            return
        }
        let routes = inputs.map { input in
            var routes = StackRoutes(layers: record.layers.map(\.layer))
            routes.append(record, input: input)
            return routes
        }
        switch stack {
        case .encoder: self.encoder = routes.first
        case .decoder where isPrompt: self.prompt = routes.first.flatMap { $0.tokenCount > 0 ? $0 : nil }
        case .decoder: self.steps.append(self.withPrompt(routes))
        }
    }

    /// A step's routes, those of the prompt in front of the first one's: in the first step a prompt's rows are still one.
    private mutating func withPrompt(_ routes: [StackRoutes]) -> [StackRoutes] {
        guard let prompt = self.prompt else { return routes }
        self.prompt = nil
        return routes.map { row in
            var joined = prompt
            joined.append(row)
            return joined
        }
    }

    /// What the answer tells.
    ///
    /// - Parameter output: The answer.
    /// - Returns: What was collected.
    func report(for output: EngineResult.Output) -> EngineRouting {
        var report = EngineRouting(encoder: self.encoder, statistics: self.statistics)
        if self.options.returnsSteps { report.steps = self.steps }
        guard self.options.returnsRoutes else {
            return report
        }
        switch output {
        case .hidden:
            break
        case .scores:
            report.decoders = self.prompt.map { [$0] } ?? self.steps.first.map { Array($0.prefix(1)) } ?? []
        case .generations(let generations):
            report.decoders = generations.map { self.path($0.sequence.rows) }
        }
        return report
    }

    /// Joins the routes of a sequence's steps, in each of which it was another row.
    private func path(_ rows: [Int]) -> StackRoutes {
        var path = StackRoutes(layers: self.steps.first?.first?.layers ?? [])
        for (step, row) in zip(self.steps, rows) where step.indices.contains(row) {
            path.append(step[row])
        }
        return path
    }
}
