// SPDX-License-Identifier: Apache-2.0

import JSONValues
import RPCCore
import SwitchyardProtos

@testable import HTTPDoor

/// The words of a model of five tokens, for answers that name tokens; it computes nothing.
struct Words: DoorBackend {
    static let pieces = ["<pad>", "</s>", " my", " king", "dom"]

    var model: ModelDescription {
        var model = ModelDescription()
        model.name = "words"
        model.fingerprint = 0xAB
        model.maxInputs = 4
        model.maxNewTokens = 64
        model.maxInputTokens = 128
        model.maxSequences = 8
        model.modelWidth = 2
        model.decoderStartTokenID = 0
        model.weightDType = .float32
        model.version = "1"
        model.encoderBlocks = 2
        model.decoderBlocks = 2
        model.vocabularySize = 5
        model.endTokenID = 1
        return model
    }

    var currentModel: ModelDescription { self.model }
    var models: [ModelDescription] { [self.model] }

    func chosen(_ name: String?, by body: [UInt8]) -> (any DoorBackend)? {
        name == nil || name == self.model.name ? self : nil
    }

    var cluster: ClusterDescription { ClusterDescription() }
    var maxStopStrings: Int { 4 }
    var maxConcurrentRequests: Int { 96 }
    var maxTargetTokens: Int { 3 }
    var specialTokens: SpecialTokens { SpecialTokens(added: 1, end: "</s>", padding: "<pad>") }
    var refusal: RPCError? { nil }

    func refusal(of caller: String) -> RPCError? { nil }

    func generate(
        _ request: GenerateRequest,
        _ call: DoorCall,
        onToken: ((GeneratedToken) async throws -> Void)?
    ) async throws -> GenerateResponse { throw RPCError(.unimplemented, "words compute nothing") }

    func encode(_ request: EncodeRequest, _ call: DoorCall) async throws -> EncodeResponse {
        throw RPCError(.unimplemented, "words compute nothing")
    }

    func score(_ request: ScoreRequest, _ call: DoorCall) async throws -> ScoreResponse {
        throw RPCError(.unimplemented, "words compute nothing")
    }

    func infer(_ request: ModelInferRequest, _ call: DoorCall) async throws -> ModelInferResponse {
        throw RPCError(.unimplemented, "words compute nothing")
    }

    func tokens(of text: String) async throws -> [UInt32] { throw RPCError(.unimplemented, "words compute nothing") }

    func texts(of ids: [UInt32]) -> [String] {
        ids.enumerated().map { $0 == 0 ? String(self.text(of: $1).drop { $0 == " " }) : self.text(of: $1) }
    }

    func text(of id: UInt32) -> String { Self.pieces[Int(id)] }
    func isSpecial(_ id: UInt32) -> Bool { id < 2 }

    /// The answer "my kingdom" in three tokens and the end.
    static let response: GenerateResponse = {
        let ids: [UInt32] = [2, 3, 4, 1]
        let logprobs = ids.enumerated()
            .map { index, id in
                TokenLogprob(
                    tokenID: id,
                    logprob: -0.5 * Float(index),
                    top: [
                        TokenCandidate(tokenID: id, logprob: -0.5 * Float(index)),
                        TokenCandidate(tokenID: 0, logprob: -.infinity),
                    ]
                )
            }
        var usage = Usage()
        usage.inputTokens = 7
        usage.outputTokens = 4
        let generation = Generation(
            text: "my kingdom</s>",
            tokenIDs: ids,
            finishReason: .endOfSequence,
            score: -0.75,
            logprobs: logprobs
        )
        return GenerateResponse(generations: [generation], usage: usage)
    }()

    /// The events that lead to ``response``.
    static let events: [GenerationEvent] = {
        let generation = Self.response.generations[0]
        let texts = Words().texts(of: generation.tokenIDs)
        return generation.tokenIDs.indices.map { index in
            .token(
                0,
                GeneratedToken(
                    tokenID: generation.tokenIDs[index],
                    text: texts[index],
                    logprob: generation.logprobs[index]
                )
            )
        } + [.response(0, Self.response)]
    }()
}

/// A JSON text as a value.
func json(_ text: String) throws -> JSONValue {
    try DoorResponder.parse(Array(text.utf8))
}

extension JSONValue {
    /// A member of an object, or an element of a list by its number.
    subscript(_ key: String) -> JSONValue? {
        switch self {
        case .object(let members): members[key]
        case .array(let elements): Int(key).flatMap { elements.indices.contains($0) ? elements[$0] : nil }
        default: nil
        }
    }

    /// What lies at a path such as `choices.0.text`.
    func at(_ path: String) -> JSONValue? {
        path.split(separator: ".").reduce(self as JSONValue?) { $0?[String($1)] }
    }
}
