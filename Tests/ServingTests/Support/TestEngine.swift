// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import GatewayServing
import LossyExperts
import Metrics
import RPCCore
import SwitchModel
import SwitchyardTypes
import Tokenization

/// The miniature's engine in this process, with any executor in place of hosts.
struct TestEngine: Sendable {
    let engine: InferenceEngine
    let tokenizer: Tokenizer

    /// What the experts lose.
    struct Drops: Sendable {
        var loss: DroppingExperts.Loss
        var stacks: Set<Stack> = [.encoder, .decoder]
        var reason = DropReason.timeout
    }

    /// Runs an engine and ends it after the body.
    static func run<Result>(
        dropping drops: Drops? = nil,
        configuration: EngineConfiguration = EngineConfiguration(),
        metrics: (any MetricsFactory)? = nil,
        _ body: (TestEngine) async throws -> Result
    ) async throws -> Result {
        let test = try TestEngine(dropping: drops, configuration: configuration, metrics: metrics)
        let life = Task { try await test.engine.run() }
        let outcome: Swift.Result<Result, any Error>
        do {
            outcome = .success(try await body(test))
        } catch {
            outcome = .failure(error)
        }
        life.cancel()
        _ = await life.result
        return try outcome.get()
    }

    init(
        dropping drops: Drops? = nil,
        configuration: EngineConfiguration = EngineConfiguration(),
        metrics: (any MetricsFactory)? = nil
    ) throws {
        let loaded = try TestModel.miniature.load()
        let tokenizer = try Tokenizer(directory: TestModel.miniature.directory)
        self.tokenizer = tokenizer
        var experts: any ExpertExecutor = loaded.experts
        if let drops {
            experts = DroppingExperts(
                loaded.experts,
                loss: drops.loss,
                expertCount: loaded.checkpoint.configuration.expertCount,
                stacks: drops.stacks,
                seed: 3,
                reason: drops.reason
            )
        }
        self.engine = InferenceEngine(
            model: loaded.model,
            experts: experts,
            tokenizer: tokenizer,
            configuration: configuration,
            metricsFactory: metrics,
            logger: quietLogger
        )
    }

    /// A request about the miniature's text.
    func request(_ kind: Kind = .generate, _ policy: DropPolicy = .allow) -> EngineRequest {
        let input = self.tokenizer.encode("Now is the winter of our <extra_id_0> Made glorious summer")
        let work: EngineRequest.Work
        switch kind {
        case .generate:
            work = .generate(Self.parameters(beams: 1), stops: [])
        case .beams:
            work = .generate(Self.parameters(beams: 3), stops: [])
        case .encode:
            work = .encode
        case .score:
            work = .score(target: self.tokenizer.encode("<extra_id_0> discontent"), topLogprobs: 0)
        }
        return EngineRequest(input: input, work: work, dropPolicy: policy)
    }

    /// What a request asks for.
    enum Kind: Sendable, CaseIterable {
        case generate
        case beams
        case encode
        case score

        /// Whether it uses the decoder.
        var decodes: Bool { self != .encode }
    }

    private static func parameters(beams: Int) -> GenerationParameters {
        var parameters = GenerationParameters()
        parameters.beamCount = beams
        parameters.returnedSequences = 1
        parameters.maxNewTokens = 12
        return parameters
    }

    /// Submits a request and waits for its end.
    func result(of request: EngineRequest) async throws -> EngineResult {
        for await event in try self.engine.submit(request).events {
            switch event {
            case .token: continue
            case .finished(let result): return result
            case .failed(let error): throw error
            }
        }
        throw CancellationError()
    }
}
