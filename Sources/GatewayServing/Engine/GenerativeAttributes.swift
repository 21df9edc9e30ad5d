// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import SwitchModel

/// What OpenTelemetry's conventions for generative models call the parts of a request and of its answer.
///
/// Source: https://github.com/open-telemetry/semantic-conventions/blob/v1.37.0/docs/gen-ai/gen-ai-spans.md. Texts of prompts and answers,
/// which the conventions leave to the operator, are never logged. Deviation: a score is no operation that they name.
enum GenerativeAttributes {
    /// The attributes of a request that has ended.
    ///
    /// - Parameters:
    ///   - request: The request.
    ///   - end: How it ended.
    ///   - model: The served model's name.
    /// - Returns: Metadata for a line of the log.
    static func metadata(of request: EngineRequest, as end: RequestEnd, model: String) -> Logger.Metadata {
        var metadata: Logger.Metadata = [
            "gen_ai.provider.name": "switchyard", "gen_ai.operation.name": "\(Self.operation(request.work.kind))",
        ]
        if !model.isEmpty { metadata["gen_ai.request.model"] = "\(model)" }
        if case .generate(let parameters, let stops) = request.work {
            metadata["gen_ai.request.max_tokens"] = "\(parameters.maxNewTokens)"
            metadata["gen_ai.request.choice.count"] = "\(parameters.returnedSequences)"
            if parameters.sampling {
                metadata["gen_ai.request.seed"] = "\(parameters.seed)"
                metadata["gen_ai.request.temperature"] = "\(parameters.temperature)"
                metadata["gen_ai.request.top_k"] = "\(parameters.topK)"
                metadata["gen_ai.request.top_p"] = "\(parameters.topP)"
            }
            if !stops.isEmpty { metadata["gen_ai.request.stop_sequences"] = .array(stops.map { .string($0) }) }
        }
        switch end {
        case .finished(let result):
            metadata["gen_ai.usage.input_tokens"] = "\(result.usage.inputTokens)"
            metadata["gen_ai.usage.output_tokens"] = "\(result.usage.outputTokens)"
            if case .generations(let generations) = result.output {
                let reasons = generations.map { Self.reason($0.sequence.finishReason) }
                metadata["gen_ai.response.finish_reasons"] = .array(reasons.map { .string($0) })
            }
        case .refused, .expired, .cancelled, .lostTokens, .stopped, .failed:
            metadata["error.type"] = "\(end.outcome.rawValue)"
        }
        return metadata
    }

    private static func operation(_ kind: EngineRequest.Kind) -> String {
        switch kind {
        case .generate: "text_completion"
        case .encode: "embeddings"
        case .score: "score"
        }
    }

    private static func reason(_ reason: FinishReason) -> String {
        switch reason {
        case .endOfSequence, .stop: "stop"
        case .length: "length"
        }
    }
}
