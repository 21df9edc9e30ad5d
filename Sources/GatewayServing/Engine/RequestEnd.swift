// SPDX-License-Identifier: Apache-2.0

internal import RPCCore

/// How a request ended: what ``InferenceEngine/end(_:as:)`` is told, once for each request.
enum RequestEnd: Sendable {
    /// With an answer, dropped tokens or none.
    case finished(EngineResult)
    /// Turned away before it had a place.
    case refused(RPCError)
    /// Its deadline passed.
    case expired
    /// Its client left.
    case cancelled
    /// Hosts lost more of its tokens than its policy accepts.
    case lostTokens(RPCError)
    /// The gateway shut down.
    case stopped
    /// For any other reason.
    case failed(RPCError)

    /// What the metrics call it.
    var outcome: GatewayMetrics.Outcome {
        switch self {
        case .finished: .finished
        case .refused: .refused
        case .expired: .expired
        case .cancelled: .cancelled
        case .lostTokens: .lostTokens
        case .stopped, .failed: .failed
        }
    }

    /// The last event that the client gets; nil where no client waits for one.
    var event: EngineEvent? {
        switch self {
        case .finished(let result):
            .finished(result)
        case .expired:
            .failed(RPCError(.deadlineExceeded, "the call's deadline passed before the request was done"))
        case .stopped:
            .failed(RPCError(.unavailable, "the gateway is shutting down; try another one"))
        case .lostTokens(let error), .failed(let error), .refused(let error):
            .failed(error)
        case .cancelled:
            nil
        }
    }

    /// What is wrong with the gateway or its model; nil for ends that say nothing of the kind.
    var fault: RPCError? {
        guard case .failed(let error) = self, error.code == .internal else { return nil }
        return error
    }

    /// Whether the time that the request took says how long others will take.
    var isFinished: Bool {
        guard case .finished = self else { return false }
        return true
    }
}
