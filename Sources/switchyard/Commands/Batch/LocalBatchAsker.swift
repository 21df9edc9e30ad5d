// SPDX-License-Identifier: Apache-2.0

import Batches
import GatewayServing
import HTTPDoor
import RPCCore
import SwitchyardProtos

/// A model in this process that answers lines.
struct LocalBatchAsker: BatchAsker {
    let gateway: LocalGateway
    let timeout: Duration?

    var name: String { "the model in this process" }

    var texts: (any TokenTexts)? { DoorTexts(words: self.gateway.tokens) }

    func model() -> ModelDescription { self.gateway.model }

    func answer(_ request: GenerateRequest) async throws -> GenerateResponse {
        try await self.judged { try await self.gateway.generate(request, timeout: self.timeout) }
    }

    func answer(_ request: ScoreRequest) async throws -> ScoreResponse {
        try await self.judged { try await self.gateway.score(request, timeout: self.timeout) }
    }

    func answer(_ request: EncodeRequest) async throws -> EncodeResponse {
        try await self.judged { try await self.gateway.encode(request, timeout: self.timeout) }
    }

    private func judged<Response>(_ call: () async throws -> Response) async throws -> Response {
        do {
            return try await call()
        } catch let error as RPCError where error.code != .cancelled {
            throw BatchFault(error.code, error.message)
        }
    }
}
