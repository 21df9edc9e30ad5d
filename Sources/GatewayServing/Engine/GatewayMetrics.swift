// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
public import Metrics
internal import SwitchModel

/// What a gateway counts, for whatever metrics backend the program has been given.
///
/// No backend is chosen here: without one, every call is a call of nothing. Labels are Prometheus' own (units as
/// suffixes, `_total` for counters); a backend that counts times in nanoseconds converts them.
///
/// | Label | Kind | Dimensions |
/// |---|---|---|
/// | `switchyard_requests_total` | counter | `outcome` |
/// | `switchyard_steps_total` | counter | |
/// | `switchyard_decoded_tokens_total` | counter | |
/// | `switchyard_routed_tokens_total` | counter | `stack` |
/// | `switchyard_dropped_tokens_total` | counter | `stack`, `layer`, `reason` |
/// | `switchyard_step_seconds` | timer | |
/// | `switchyard_queue_seconds` | timer | |
/// | `switchyard_first_token_seconds` | timer | |
/// | `switchyard_next_token_seconds` | timer | |
public struct GatewayMetrics: Sendable {
    /// How a request that was submitted to the engine ended.
    public enum Outcome: String, Sendable, CaseIterable {
        /// With an answer, dropped tokens or none.
        case finished
        /// At once: the queue was full, the gateway was leaving, or it asked for more slots than there are.
        case refused
        /// Its deadline passed before the answer was there.
        case expired
        /// Its client left.
        case cancelled
        /// Hosts lost more of its tokens than its policy accepts.
        case lostTokens = "lost_tokens"
        /// For any other reason: the gateway stopped, or is at fault.
        case failed
    }

    private struct Place: Hashable {
        let layer: SparseLayer
        let reason: DropReason
    }

    private let requests: [Outcome: Counter]
    private let dropped: [Place: Counter]
    private let routed: [Stack: Counter]
    private let steps: Counter
    private let decodedTokens: Counter
    private let stepTime: Timer
    private let queueTime: Timer
    private let firstTokenTime: Timer
    private let nextTokenTime: Timer

    /// Creates every metric, so that all of them are seen from the start, at zero.
    ///
    /// - Parameters:
    ///   - layers: The model's sparse layers.
    ///   - factory: The backend; the one of the process when nil.
    public init(layers: [SparseLayer], factory: (any MetricsFactory)? = nil) {
        let factory = factory ?? MetricsSystem.factory
        func counter(_ name: String, _ dimensions: [(String, String)] = []) -> Counter {
            Counter(label: "switchyard_\(name)_total", dimensions: dimensions, factory: factory)
        }
        func timer(_ name: String) -> Timer {
            Timer(label: "switchyard_\(name)_seconds", preferredDisplayUnit: .seconds, factory: factory)
        }
        self.requests = Dictionary(
            uniqueKeysWithValues: Outcome.allCases.map { ($0, counter("requests", [("outcome", $0.rawValue)])) }
        )
        var dropped: [Place: Counter] = [:]
        for layer in layers {
            for reason in DropReason.allCases {
                dropped[Place(layer: layer, reason: reason)] = counter(
                    "dropped_tokens",
                    [("stack", "\(layer.stack)"), ("layer", "\(layer.block)"), ("reason", reason.label)]
                )
            }
        }
        self.dropped = dropped
        self.routed = Dictionary(
            uniqueKeysWithValues: Set(layers.map(\.stack)).map { ($0, counter("routed_tokens", [("stack", "\($0)")])) }
        )
        self.steps = counter("steps")
        self.decodedTokens = counter("decoded_tokens")
        self.stepTime = timer("step")
        self.queueTime = timer("queue")
        self.firstTokenTime = timer("first_token")
        self.nextTokenTime = timer("next_token")
    }

    // MARK: - For the engine

    /// A request ended.
    func ended(_ outcome: Outcome) {
        self.requests[outcome]?.increment()
    }

    /// A call of one half of the model is over.
    ///
    /// - Parameters:
    ///   - record: What happened to its tokens.
    ///   - stack: Which half.
    func add(_ record: RoutingRecord, stack: Stack) {
        self.routed[stack]?.increment(by: record.routedCount)
        for (drop, count) in record.drops {
            self.dropped[Place(layer: drop.layer, reason: drop.reason)]?.increment(by: count)
        }
    }

    /// A step is over; `time` is how long it took.
    func stepped(_ time: Duration) {
        self.steps.increment()
        self.stepTime.record(duration: time)
    }

    /// So many decoder rows were decoded at once.
    func decoded(rows: Int) {
        self.decodedTokens.increment(by: rows)
    }

    /// A request waited so long for its first step.
    func queued(_ time: Duration) {
        self.queueTime.record(duration: time)
    }

    /// A request has a token more.
    ///
    /// - Parameters:
    ///   - time: Since its submission for the first one, since the one before it for the others.
    ///   - isFirst: Whether it is the first one.
    func token(after time: Duration, isFirst: Bool) {
        (isFirst ? self.firstTokenTime : self.nextTokenTime).record(duration: time)
    }
}

extension DropReason {
    /// The reason as metrics and Prometheus' users write it.
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
