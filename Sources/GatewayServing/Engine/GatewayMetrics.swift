// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
public import Metrics
internal import SwitchModel
public import SwitchyardTypes
internal import Telemetry

/// What a gateway counts, for any metrics backend.
///
/// The program chooses the backend; without one, nothing is counted. `MetricCatalog` defines the metrics; values that
/// are cheaper to look up than to count come from ``Gateway/collect(into:expertSeriesLimit:)``.
public struct GatewayMetrics: Sendable {
    /// How a request that was submitted to the engine ended.
    public enum Outcome: String, Sendable, CaseIterable {
        /// With an answer, with or without dropped tokens.
        case finished
        /// Refused at once: the queue was full, the gateway was draining, or the request needs more slots than there
        /// are.
        case refused
        /// Its deadline passed before the answer was ready.
        case expired
        /// Its client cancelled it.
        case cancelled
        /// Hosts lost more of its tokens than its policy accepts.
        case lostTokens = "lost_tokens"
        /// For any other reason: the gateway stopped or is at fault.
        case failed
    }

    private struct Place: Hashable {
        let layer: SparseLayer
        let reason: DropReason
    }

    private let requests: [Outcome: Counter]
    private let dropped: [Place: Counter]
    private let routed: [Stack: Counter]
    private let requestTimes: [EngineRequest.Kind: Timer]
    private let steps: Counter
    private let encodedTokens: Counter
    private let decodedTokens: Counter
    private let stepTime: Timer
    private let encodeTime: Timer
    private let decodeTime: Timer
    private let decodeRows: Recorder
    private let queueTime: Timer
    private let firstTokenTime: Timer
    private let nextTokenTime: Timer

    /// Creates every metric, so that all of them exist from the start, at zero.
    ///
    /// - Parameters:
    ///   - layers: The model's sparse layers.
    ///   - factory: The backend; the process's own when nil.
    public init(layers: [SparseLayer], factory: (any MetricsFactory)? = nil) {
        let factory = factory ?? MetricsSystem.factory
        let table = MetricCatalog.engine
        self.requests = Dictionary(
            uniqueKeysWithValues: Outcome.allCases.map { outcome in
                (outcome, table.requestsTotal.counter([outcome.rawValue], factory: factory))
            }
        )
        var dropped: [Place: Counter] = [:]
        for layer in layers {
            for reason in DropReason.allCases {
                let labels = ["\(layer.stack)", "\(layer.block)", reason.label]
                dropped[Place(layer: layer, reason: reason)] = table.droppedTokensTotal.counter(
                    labels,
                    factory: factory
                )
            }
        }
        self.dropped = dropped
        self.routed = Dictionary(
            uniqueKeysWithValues: Set(layers.map(\.stack))
                .map { stack in (stack, table.routedTokensTotal.counter(["\(stack)"], factory: factory)) }
        )
        self.requestTimes = Dictionary(
            uniqueKeysWithValues: EngineRequest.Kind.allCases.map { kind in
                (kind, table.requestSeconds.timer([kind.rawValue], factory: factory))
            }
        )
        self.steps = table.stepsTotal.counter(factory: factory)
        self.encodedTokens = table.encodedTokensTotal.counter(factory: factory)
        self.decodedTokens = table.decodedTokensTotal.counter(factory: factory)
        self.stepTime = table.stepSeconds.timer(factory: factory)
        self.encodeTime = table.encodeSeconds.timer(factory: factory)
        self.decodeTime = table.decodeSeconds.timer(factory: factory)
        self.decodeRows = table.decodeRows.recorder(factory: factory)
        self.queueTime = table.queueSeconds.timer(factory: factory)
        self.firstTokenTime = table.firstTokenSeconds.timer(factory: factory)
        self.nextTokenTime = table.nextTokenSeconds.timer(factory: factory)
    }

    // MARK: - For the engine

    /// A request ended.
    func ended(_ outcome: Outcome) {
        self.requests[outcome]?.increment()
    }

    /// A pass through one stack ended.
    ///
    /// - Parameters:
    ///   - record: What happened to its tokens.
    ///   - stack: The stack.
    func add(_ record: RoutingRecord, stack: Stack) {
        self.routed[stack]?.increment(by: record.routedCount)
        for (drop, count) in record.drops {
            self.dropped[Place(layer: drop.layer, reason: drop.reason)]?.increment(by: count)
        }
    }

    /// A step ended after `time`.
    func stepped(_ time: Duration) {
        self.steps.increment()
        self.stepTime.record(duration: time)
    }

    /// A request was answered, `time` after its arrival.
    func answered(_ kind: EngineRequest.Kind, after time: Duration) {
        self.requestTimes[kind]?.record(duration: time)
    }

    /// One pass decoded `rows` rows in `time`.
    func decoded(rows: Int, time: Duration) {
        self.decodedTokens.increment(by: rows)
        self.decodeRows.record(rows)
        self.decodeTime.record(duration: time)
    }

    /// Inputs with `tokens` tokens were encoded together in `time`.
    func encoded(tokens: Int, time: Duration) {
        self.encodedTokens.increment(by: tokens)
        self.encodeTime.record(duration: time)
    }

    /// A request waited `time` for its first step.
    func queued(_ time: Duration) {
        self.queueTime.record(duration: time)
    }

    /// Records one more token of a request.
    ///
    /// - Parameters:
    ///   - time: For the first token, the time since submission; for others, the time since the previous one.
    ///   - isFirst: Whether it is the first token.
    func token(after time: Duration, isFirst: Bool) {
        (isFirst ? self.firstTokenTime : self.nextTokenTime).record(duration: time)
    }
}

extension DropReason {
    /// The reason as a label value.
    var label: String {
        switch self {
        case .capacity: "capacity"
        case .timeout: "timeout"
        case .unavailable: "unavailable"
        case .overloaded: "overloaded"
        case .badReply: "bad_reply"
        }
    }
}
