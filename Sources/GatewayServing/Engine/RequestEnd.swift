// SPDX-License-Identifier: Apache-2.0

internal import RPCCore
internal import SwitchModel

/// How a request ended, passed to ``InferenceEngine/end(_:as:)`` once per request.
enum RequestEnd: Sendable {
    /// With an answer, with or without dropped tokens.
    case finished(EngineResult)
    /// Refused before it was queued, displaced from a full queue, or not admitted within its queue time-out.
    case refused(RPCError)
    /// Its deadline passed.
    case expired
    /// Its client cancelled it.
    case cancelled
    /// Hosts lost more of its tokens than its policy accepts.
    case lostTokens(RPCError)
    /// The gateway shut down.
    case stopped
    /// For any other reason.
    case failed(RPCError)

    /// Its name in metrics.
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

    /// The last event that the client gets; nil if no client waits for one.
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

    /// How much of a request's work was done, in tokens times rows; nil if that is not known.
    func work(of request: EngineRequest) -> Int? {
        guard case .finished(let result) = self else { return nil }
        guard case .generations(let generations) = result.output else {
            return result.usage.inputTokens + result.usage.outputTokens
        }
        let longest = generations.map(\.sequence.tokenIDs.count).max() ?? 0
        return result.usage.inputTokens + longest * request.slotCount
    }

    /// What is wrong with the gateway or its model; nil for ends that are not its fault.
    var fault: RPCError? {
        guard case .failed(let error) = self, error.code == .internal else { return nil }
        return error
    }

    /// Whether the request's time predicts how long others will take.
    var isFinished: Bool {
        guard case .finished = self else { return false }
        return true
    }
}
