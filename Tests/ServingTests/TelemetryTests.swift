// SPDX-License-Identifier: Apache-2.0

import BatchScheduling
import Checkpoints
import ExpertPooling
import ExpertServing
import Logging
import RPCCore
import ServiceKit
import SwitchyardProtos
import SwitchyardTypes
import Synchronization
import Telemetry
import TensorKernels
import Testing

@testable import GatewayServing
@testable import SwitchModel

@Suite("What services report about themselves")
struct ServiceTelemetryTests {
    @Test("every metric of the table is reported by a service, and services report no other")
    func complete() async throws {
        let folder = try ShardCache.folder(of: .miniature, pools: 1)
        let hostRegistry = MetricsRegistry()
        let gatewayRegistry = MetricsRegistry()
        let host = try await RunningHost.start("\(folder)/pool-0", metrics: hostRegistry)
        hostRegistry.collect { snapshot in host.host.collect(into: &snapshot) }
        let target = PoolSpecification(name: "pool-0", targets: [.address(host: "127.0.0.1", port: host.port)])
        try await withGateway([target], metrics: gatewayRegistry) { gateway, channel in
            gatewayRegistry.collect { snapshot in gateway.collect(into: &snapshot) }
            #expect(gateway.readiness == Readiness(isReady: true))
            #expect(host.host.readiness == Readiness(isReady: true))
            _ = try await channel.generate(GenerateRequest(input: .text("my <extra_id_0> for a horse!")))
            // The step's end is reported after the request's.
            let isOver = await eventually { gatewayRegistry.snapshot.value("switchyard_running_requests") == 0 }
            #expect(isOver)
            #expect(gatewayRegistry.snapshot.undescribed == [])
            #expect(hostRegistry.snapshot.undescribed == [])
            let given = Self.families(gatewayRegistry).union(Self.families(hostRegistry))
            // These have series only if something is encrypted, or lost.
            let conditional: Set = [
                "switchyard_tls_certificate_expiry_timestamp_seconds", "switchyard_metric_series_dropped_total",
            ]
            // Those of HTTP belong to a listener that this gateway does not have.
            // Those of training belong to a run and its hosts.
            let ofServices = Set(MetricCatalog.all.map(\.name))
                .subtracting(MetricCatalog.http.definitions.map(\.name))
                .subtracting(MetricCatalog.training.definitions.map(\.name))
                .subtracting(MetricCatalog.trainingShards.definitions.map(\.name))
                .subtracting(MetricCatalog.trainingHost.definitions.map(\.name))
            #expect(ofServices.subtracting(given) == conditional)
            await host.kill()
            let isKnown = await eventually { !gateway.readiness.notes.isEmpty }
            #expect(isKnown)
            // Requests say themselves whether they accept lost tokens.
            #expect(
                gateway.readiness
                    == Readiness(isReady: true, notes: ["the pool pool-0 has no replica that is ready"])
            )
            let view = gatewayRegistry.snapshot
            #expect(view.value("switchyard_expert_replicas", ["pool-0", "ready"]) == 0)
            #expect(view.value("switchyard_experts_complete") == 0)
            gateway.beginDraining()
            #expect(gateway.readiness == Readiness(isReady: false, notes: ["draining"]))
            #expect(gatewayRegistry.snapshot.value("switchyard_ready") == 0)
        }
    }

    @Test("a gateway that waits for its hosts names them")
    func waiting() async throws {
        // Nothing listens there: the port belonged to a listener that is gone.
        let gone = try await RunningHost.start("\(try ShardCache.folder(of: .miniature, pools: 1))/pool-0")
        await gone.kill()
        var configuration = GatewayConfiguration(
            modelDirectory: TestModel.miniature.directory,
            pools: [PoolSpecification(name: "pool-0", targets: [.address(host: "127.0.0.1", port: gone.port)])]
        )
        configuration.port = 0
        let gateway = try Gateway(configuration: configuration, logger: quietLogger)
        let notes = ["waiting for expert hosts", "the pool pool-0 has no replica that is ready"]
        #expect(gateway.readiness == Readiness(isReady: false, notes: notes))
    }

    @Test("experts share series if the setting allows fewer")
    func expertSeries() async throws {
        try await withHosts(.miniature, pools: 1) { hosts, pools in
            try await withGateway(pools) { gateway, channel in
                _ = try await channel.generate(GenerateRequest(input: .text("my <extra_id_0> for a horse!")))
                let isOver = await eventually { gateway.engine.load.running == 0 }
                #expect(isOver)
                let layers = gateway.engine.model.configuration.sparseLayers
                let all = gateway.engine.load.expertRows.values.joined().reduce(0, +)
                for (limit, series) in [(2000, layers.count * 8), (layers.count * 2, layers.count * 2), (1, 0)] {
                    var snapshot = MetricSnapshot()
                    gateway.collect(into: &snapshot, expertSeriesLimit: limit)
                    let values = Self.values("switchyard_expert_tokens_total", in: snapshot)
                    #expect(values.count == series)
                    #expect(values.reduce(0, +) == (series > 0 ? Double(all) : 0))
                    var hostSnapshot = MetricSnapshot()
                    hosts[0].host.collect(into: &hostSnapshot, expertSeriesLimit: limit)
                    let rows = Self.values("switchyard_host_expert_rows_total", in: hostSnapshot)
                    #expect(rows.reduce(0, +) == (series > 0 ? Double(all) : 0))
                }
            }
        }
    }

    private static func families(_ registry: MetricsRegistry) -> Set<String> {
        Set(
            String(decoding: registry.text(), as: UTF8.self).split(separator: "\n")
                .filter { $0.hasPrefix("# TYPE ") }
                .compactMap { $0.split(separator: " ").dropFirst(2).first.map(String.init) }
        )
    }

    private static func values(_ name: String, in snapshot: MetricSnapshot) -> [Double] {
        String(decoding: snapshot.text(), as: UTF8.self).split(separator: "\n").filter { $0.hasPrefix("\(name){") }
            .compactMap { $0.split(separator: " ").last.flatMap { Double($0) } }
    }
}

@Suite("The traces of a pass")
struct StepTraceTests {
    /// Experts that record the trace of each call.
    private final class NotingExperts: TracedExperts {
        struct Work: PendingExperts {
            func wait() throws -> ExpertOutputs { ExpertOutputs(chunks: []) }
            func cancel() {}
        }

        let asked = Mutex<[TraceID?]>([])

        func begin(_ request: ExpertLayerRequest) -> any PendingExperts {
            self.asked.withLock { $0.append(nil) }
            return Work()
        }

        func begin(_ request: ExpertLayerRequest, trace: StepTrace) -> any PendingExperts {
            self.asked.withLock { $0.append(trace.carried.traceID) }
            return Work()
        }
    }

    private static func trace(_ flags: String = "01") throws -> TraceContext {
        let parent = "00-\(TraceID.random())-\(SpanID.random())-\(flags)"
        return try #require(TraceContext.begin(parents: [parent], states: { ["a=1"] }))
    }

    private static var request: ExpertLayerRequest {
        let plan = DispatchPlan(
            choices: [0],
            probabilities: [1],
            sequences: [0],
            expertCount: 4,
            policy: .unlimited,
            checkpointCapacity: 64
        )
        return ExpertLayerRequest(
            layer: SparseLayer(stack: .decoder, block: 1),
            plan: plan,
            hidden: FloatMatrix(rows: 1, columns: 4),
            sequences: [0]
        )
    }

    @Test("calls carry the first sampled request's trace, and log lines name all")
    func several() throws {
        let one = try Self.trace()
        let two = try Self.trace()
        #expect(StepTrace([]) == nil)
        let alone = try #require(StepTrace([one, one]))
        #expect(alone.traceIDs == [one.traceID])
        let span = alone.carried.child()
        #expect(alone.logMetadata(of: span)["trace_ids"] == nil)
        let both = try #require(StepTrace([one, two]))
        #expect(both.carried == one)
        let metadata = both.logMetadata(of: span)
        #expect(metadata["trace_id"] == "\(one.traceID)")
        #expect(metadata["span_id"] == "\(span.spanID)")
        #expect(metadata["parent_span_id"] == "\(one.spanID)")
        #expect(metadata["trace_ids"] == .array([.stringConvertible(one.traceID), .stringConvertible(two.traceID)]))
    }

    @Test("a call carries its span and its trace's state, and reads back as its child")
    func metadata() throws {
        let trace = try Self.trace()
        let carried = Metadata(carrying: trace)
        #expect(carried.count == 2)
        #expect(carried.first("traceparent") == trace.parent.description)
        #expect(carried.first("tracestate") == "a=1")
        let child = try #require(TraceContext.begin(carried))
        #expect(child.parentSpanID == trace.spanID)
        #expect(child.traceID == trace.traceID)
        #expect(child.state == "a=1")
        #expect(TraceContext.begin(Metadata()) == nil)
    }

    @Test("only a pass with a sampled request sends a trace to its experts")
    func asked() throws {
        let experts = NotingExperts()
        let watch = StepWatch(experts: experts, expertCount: 4)
        let book = StepBook(members: [.init(id: SequenceID(1), inputs: 1)])
        let trace = try Self.trace()
        _ = try watch.open(book).execute(Self.request)
        _ = try watch.open(book, trace: StepTrace([trace])).execute(Self.request)
        #expect(experts.asked.withLock { $0 } == [nil, trace.traceID])
    }

    @Test("an engine sends only the traces of sampled requests")
    func engine() async throws {
        let sampled = try Self.trace()
        let unsampled = try Self.trace("00")
        let experts = NotingExperts()
        let test = try TestEngine()
        let engine = InferenceEngine(
            model: test.engine.model,
            experts: experts,
            tokenizer: test.tokenizer,
            logger: quietLogger
        )
        let life = Task { try await engine.run() }
        for (trace, expected) in [(nil, nil), (unsampled, nil), (sampled, sampled.traceID)]
            as [(TraceContext?, TraceID?)]
        {
            experts.asked.withLock { $0 = [] }
            var request = test.request(.encode)
            request.trace = trace
            for await event in try engine.submit(request).events {
                if case .failed = event { break }
            }
            let asked = experts.asked.withLock { $0 }
            #expect(!asked.isEmpty)
            #expect(asked.allSatisfy { $0 == expected })
        }
        life.cancel()
        _ = await life.result
    }
}

@Suite("A traced request in the words of OpenTelemetry's conventions")
struct GenerativeAttributeTests {
    @Test("an answer says what was asked, what it cost and why it ended, and never a text")
    func answered() {
        var parameters = GenerationParameters()
        parameters.maxNewTokens = 7
        var request = EngineRequest(input: [5, 1], work: .generate(parameters, stops: ["x"]))
        let sequence = GeneratedSequence(
            tokenIDs: [3, 4],
            finishReason: .length,
            score: 0,
            logprobs: [],
            topLogprobs: []
        )
        var usage = EngineUsage()
        usage.inputTokens = 2
        usage.outputTokens = 2
        let result = EngineResult(
            output: .generations([EngineGeneration(text: "secret", sequence: sequence)]),
            usage: usage
        )
        let answered = GenerativeAttributes.metadata(of: request, as: .finished(result), model: "mini")
        #expect(
            answered == [
                "gen_ai.provider.name": "switchyard", "gen_ai.operation.name": "text_completion",
                "gen_ai.request.model": "mini", "gen_ai.request.max_tokens": "7", "gen_ai.request.choice.count": "1",
                "gen_ai.request.stop_sequences": ["x"], "gen_ai.usage.input_tokens": "2",
                "gen_ai.usage.output_tokens": "2", "gen_ai.response.finish_reasons": ["length"],
            ]
        )
        parameters.sampling = true
        parameters.seed = 9
        request.work = .generate(parameters, stops: [])
        let sampled = GenerativeAttributes.metadata(
            of: request,
            as: .lostTokens(RPCError(.unavailable, "x")),
            model: ""
        )
        #expect(sampled["gen_ai.request.seed"] == "9" && sampled["gen_ai.request.top_k"] == "50")
        #expect(sampled["error.type"] == "lost_tokens" && sampled["gen_ai.request.model"] == nil)
        request.work = .encode
        let encoded = GenerativeAttributes.metadata(of: request, as: .expired, model: "mini")
        #expect(encoded["gen_ai.operation.name"] == "embeddings" && encoded["error.type"] == "expired")
    }
}
