// SPDX-License-Identifier: Apache-2.0

import GatewayServing
import HTTPDoor
import RPCCore
import SwitchyardProtos
import Telemetry

/// The gateway as HTTP sees it.
struct GatewayDoor: DoorBackend {
    let calls: GatewayCalls

    var model: ModelDescription { self.calls.model }
    var currentModel: ModelDescription { self.calls.currentModel }
    var models: [ModelDescription] { self.calls.models }
    var cluster: ClusterDescription { self.calls.cluster }
    var maxStopStrings: Int { self.calls.limits.maxStopStrings }
    var maxConcurrentRequests: Int { self.calls.maxConcurrentRequests }
    var refusal: RPCError? { self.calls.refusal }

    func chosen(_ name: String?, by body: [UInt8]) -> (any DoorBackend)? {
        self.calls.chosen(name, by: body).map { GatewayDoor(calls: $0) }
    }

    var maxTargetTokens: Int { self.calls.limits.maxTargetTokens }

    var specialTokens: SpecialTokens {
        let words = self.calls.tokens
        let model = self.calls.model
        // A vocabulary of single characters has no token that stands for none.
        guard let added = words.addedTokenID else { return SpecialTokens() }
        return SpecialTokens(
            added: added,
            end: words.text(of: model.endTokenID),
            padding: words.text(of: model.padTokenID)
        )
    }

    func refusal(of caller: String) -> RPCError? { self.calls.refusal(of: caller) }

    func generate(
        _ request: GenerateRequest,
        _ call: DoorCall,
        onToken: ((GeneratedToken) async throws -> Void)?
    ) async throws -> GenerateResponse {
        try await self.calls.generate(request, .init(call), onToken: onToken)
    }

    func encode(_ request: EncodeRequest, _ call: DoorCall) async throws -> EncodeResponse {
        try await self.calls.encode(request, .init(call))
    }

    func score(_ request: ScoreRequest, _ call: DoorCall) async throws -> ScoreResponse {
        try await self.calls.score(request, .init(call))
    }

    func infer(_ request: ModelInferRequest, _ call: DoorCall) async throws -> ModelInferResponse {
        try await self.calls.infer(request, .init(call))
    }

    func tokens(of text: String) async throws -> [UInt32] { try await self.calls.tokens(of: text) }

    func texts(of ids: [UInt32]) -> [String] { self.calls.tokens.texts(of: ids) }
    func text(of id: UInt32) -> String { self.calls.tokens.text(of: id) }
    func isSpecial(_ id: UInt32) -> Bool { self.calls.tokens.isSpecial(id) }
}

/// The texts of a model's tokens as HTTP's dialects ask for them.
struct DoorTexts: TokenTexts {
    let words: TokenWords

    func texts(of ids: [UInt32]) -> [String] { self.words.texts(of: ids) }
    func text(of id: UInt32) -> String { self.words.text(of: id) }
    func isSpecial(_ id: UInt32) -> Bool { self.words.isSpecial(id) }
}

extension GatewayCalls.Context {
    fileprivate init(_ call: DoorCall) {
        self.init(deadline: call.deadline, trace: call.trace, caller: call.caller)
    }
}

/// HTTP as a listener of the gateway.
struct DoorListener: GatewayListener {
    let door: HTTPDoor

    func run() async throws { try await self.door.run() }
    func beginDraining() { self.door.beginDraining() }
    func collect(into snapshot: inout MetricSnapshot) { self.door.collect(into: &snapshot) }
}
