// SPDX-License-Identifier: Apache-2.0

import Batches
import HTTPDoor
import RPCCore
import SwitchyardClient
import SwitchyardProtos
import SwitchyardTypes

/// What became of a line that was asked.
enum BatchOutcome: Sendable {
    /// Its answer as a line.
    case answered([UInt8])
    /// The error that any other try would give too, as a line.
    case failed([UInt8])
    /// Nothing was done for it.
    case turnedAway(BatchRefusal)
}

/// Why nothing was done for a line.
struct BatchRefusal: Error, Sendable {
    /// What was said.
    var reason: String
    /// Whether there was no room for it.
    var isFull: Bool
    /// How long to wait before the next try; nil if nothing was said.
    var delay: Duration?
}

/// Who answers a batch's lines: a gateway, or a model in this process.
protocol BatchAsker: Sendable {
    /// Who that is, for messages.
    var name: String { get }

    /// Describes the model.
    ///
    /// - Throws: What is thrown when it cannot be told.
    func model() async throws -> ModelDescription

    /// The texts of tokens; nil where no tokenizer is at hand.
    var texts: (any TokenTexts)? { get }

    /// Asks for generated text.
    ///
    /// - Throws: ``BatchRefusal`` where nothing was done, ``BatchFault`` for an error that is the line's own, any other error for
    ///   what ends the batch.
    func answer(_ request: GenerateRequest) async throws -> GenerateResponse

    /// Asks for a target's log-probabilities; throws as ``answer(_:)-(GenerateRequest)`` does.
    func answer(_ request: ScoreRequest) async throws -> ScoreResponse

    /// Asks for hidden states; throws as ``answer(_:)-(GenerateRequest)`` does.
    func answer(_ request: EncodeRequest) async throws -> EncodeResponse
}

extension BatchAsker {
    /// Asks one line.
    ///
    /// - Parameters:
    ///   - line: The line.
    ///   - index: Its index, from 0.
    /// - Returns: What became of it.
    /// - Throws: What ends the batch.
    func ask(_ line: BatchLine, index: Int) async throws -> BatchOutcome {
        do {
            let bytes =
                switch try line.request.get() {
                case .generate(let request):
                    BatchAnswer.line(try await self.answer(request), id: line.id, index: index)
                case .score(let request): BatchAnswer.line(try await self.answer(request), id: line.id, index: index)
                case .encode(let request): BatchAnswer.line(try await self.answer(request), id: line.id, index: index)
                }
            return .answered(bytes)
        } catch let fault as BatchFault {
            return .failed(BatchAnswer.line(fault, id: line.id, index: index))
        } catch let refusal as BatchRefusal {
            return .turnedAway(refusal)
        }
    }

    /// Asks one line of OpenAI's batch format, prompt after prompt: of several at once, some might find no room time and again.
    ///
    /// - Parameter line: The line.
    /// - Returns: What became of it.
    /// - Throws: What ends the batch.
    func ask(_ line: OpenAIBatchLine) async throws -> BatchOutcome {
        do {
            switch line.question {
            case .none: return .failed(line.refusal)
            case .generate(let requests):
                var responses: [GenerateResponse] = []
                for request in requests { responses.append(try await self.answer(request)) }
                return .answered(line.answer(responses))
            case .encode(let request):
                let (bytes, isAnswer) = line.answer(try await self.answer(request))
                return isAnswer ? .answered(bytes) : .failed(bytes)
            }
        } catch let fault as BatchFault {
            return .failed(line.answer(RPCError(fault.code, fault.message)))
        } catch let refusal as BatchRefusal {
            return .turnedAway(refusal)
        }
    }
}

/// A gateway that answers lines.
struct GatewayBatchAsker: BatchAsker {
    let client: GatewayClient

    var name: String { "the gateway at \(self.client.endpoint)" }

    var texts: (any TokenTexts)? { nil }

    func model() async throws -> ModelDescription {
        try await self.judged { () async throws(GatewayError) in try await self.client.describeModel() }
    }

    func answer(_ request: GenerateRequest) async throws -> GenerateResponse {
        try await self.judged { () async throws(GatewayError) in try await self.client.generate(request) }
    }

    func answer(_ request: ScoreRequest) async throws -> ScoreResponse {
        try await self.judged { () async throws(GatewayError) in try await self.client.score(request) }
    }

    func answer(_ request: EncodeRequest) async throws -> EncodeResponse {
        try await self.judged { () async throws(GatewayError) in try await self.client.encode(request) }
    }

    private func judged<Response>(_ call: () async throws(GatewayError) -> Response) async throws -> Response {
        do throws(GatewayError) {
            return try await call()
        } catch {
            switch error.code {
            case .unavailable, .aborted:
                throw BatchRefusal(reason: "\(error)", isFull: false, delay: error.retryDelay)
            case .resourceExhausted where error.isRetryable:
                throw BatchRefusal(reason: "\(error)", isFull: true, delay: error.retryDelay)
            // These would meet every line.
            case .unauthenticated, .permissionDenied, .unimplemented, .cancelled: throw error
            case .failedPrecondition where error.cause != nil: throw error
            default: throw BatchFault(error.code, error.message)
            }
        }
    }
}
