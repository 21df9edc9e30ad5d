// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import Logging
import NIOCore
import RPCCore
import RPCTransport
import SwitchyardProtos
import Telemetry
import Testing

@testable import switchyard

@Suite("Metrics, probes and traces of a cluster", .serialized)
struct TelemetryTests {
    private static let trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    private static let span = "00f067aa0ba902b7"

    /// Generates with the test's own metadata.
    private static func generate(
        _ prompt: String,
        on channel: RPCChannel,
        _ fields: [(String, String)] = []
    ) async throws -> (response: GenerateResponse, trailing: Metadata) {
        var options = CallOptions(deadline: .now.advanced(by: .seconds(60)), waitForReady: true)
        for (key, value) in fields { try options.metadata.add(value, forKey: key) }
        let reply = try await channel.unary(
            Method(service: GatewayMethods.service, name: "Generate"),
            Payload(bytes: GenerateRequest(input: .text(prompt)).serialized()),
            options: options
        )
        return (try GenerateResponse(serialized: Array(buffer: reply.message)), reply.trailingMetadata)
    }

    @Test("what is scraped agrees with the responses, and a trace is found in every process's log")
    func metricsAndTraces() async throws {
        let prompt = try #require(try TestCluster.prompts().first)
        let log = ProcessLog()
        try await TestCluster.runProcesses(
            pools: 2,
            gatewayArguments: ["--log-format", "json"],
            hostArguments: ["--log-level", "debug"],
            adminListen: "127.0.0.1:0",
            log: log
        ) { cluster in
            let gateway = try #require(cluster.gateway.running.first)
            let usage = try await withHostChannel(gateway) { channel in
                let (plain, nothing) = try await Self.generate(prompt.prompt, on: channel)
                #expect(plain.generations.first?.tokenIDs == prompt.tokenIDs)
                #expect(nothing.isEmpty)
                try await Self.checkTraces(prompt.prompt, on: channel, log: log)
                return try #require(plain.usage)
            }
            try await Self.checkMetrics(cluster, usage: usage, requests: 3)
        }
    }

    /// Two traced requests: one that follows the standard, and a malformed one.
    private static func checkTraces(_ prompt: String, on channel: RPCChannel, log: ProcessLog) async throws {
        let parent = "00-\(Self.trace)-\(Self.span)-01"
        let (_, told) = try await Self.generate(
            prompt,
            on: channel,
            [("traceparent", parent), ("tracestate", "vendor=value")]
        )
        let answer = try #require(told.first("traceresponse"))
        #expect(answer.hasPrefix("00-\(Self.trace)-"))
        #expect(answer.hasSuffix("-01"))
        let span = answer.split(separator: "-")[2]
        #expect(span != Self.span)

        let (_, restarted) = try await Self.generate(prompt, on: channel, [("traceparent", "00-nonsense")])
        let other = try #require(restarted.first("traceresponse"))
        #expect(!other.contains(Self.trace))
        #expect(other.hasSuffix("-00"))
        let otherTrace = String(other.split(separator: "-")[1])

        // The lines come through pipes.
        try await FaultTests.eventually {
            let lines = log.lines
            return lines.contains { $0.hasPrefix("[gateway]") && $0.contains("a traced request ended") }
                && ["[pool-0/0]", "[pool-1/0]"]
                    .allSatisfy { name in
                        lines.contains { $0.hasPrefix(name) && $0.contains("trace_id=\(Self.trace)") }
                    }
        }
        let lines = log.lines
        let line = try #require(lines.first { $0.contains("a traced request ended") })
        let start = try #require(line.firstIndex(of: "{"))
        let object = try JSONSerialization.jsonObject(with: Data(line[start...].utf8)) as? [String: Any]
        #expect(object?["trace_id"] as? String == Self.trace)
        #expect(object?["span_id"] as? String == String(span))
        #expect(object?["parent_span_id"] as? String == Self.span)
        #expect(object?["level"] as? String == "info")
        let hostLines = lines.filter { $0.contains("computed a traced call") }
        #expect(hostLines.allSatisfy { $0.contains("trace_id=\(Self.trace)") })
        // Each call is a span of its own, below one of the gateway's.
        let spans = hostLines.compactMap { $0.firstMatch(of: /parent_span_id=([0-9a-f]{16})/)?.output.1 }
        #expect(spans.count == hostLines.count)
        #expect(Set(spans).count == spans.count)
        // A trace that is not sampled ends at the gateway.
        #expect(!lines.contains { $0.contains(otherTrace) && $0.hasPrefix("[pool-") })
    }

    /// The processes' counts agree with the responses; all requests were the same.
    private static func checkMetrics(_ cluster: LocalCluster, usage: Usage, requests: Double) async throws {
        let gateway = try await Scrape(try #require(cluster.gateway.running.first))
        #expect(gateway["switchyard_rpc_calls_total{method=\"Generate\",code=\"OK\"}"] == requests)
        #expect(gateway["switchyard_requests_total{outcome=\"finished\"}"] == requests)
        #expect(gateway["switchyard_request_seconds_count{work=\"generate\"}"] == requests)
        #expect(gateway["switchyard_first_token_seconds_count"] == requests)
        #expect(gateway["switchyard_encoded_tokens_total"] == requests * Double(usage.inputTokens))
        #expect(gateway["switchyard_decoded_tokens_total"] == requests * Double(usage.outputTokens))
        #expect(gateway["switchyard_decode_rows_sum"] == requests * Double(usage.outputTokens))
        #expect(gateway["switchyard_decode_rows_count"] == gateway["switchyard_decode_seconds_count"])
        let routed = gateway.sum("switchyard_routed_tokens_total")
        #expect(routed == requests * Double(usage.routedTokens))
        let dropped = gateway.sum("switchyard_dropped_tokens_total")
        let lost = usage.dropped.reduce(0) { $0 + Int($1.tokens) }
        #expect(dropped == requests * Double(lost))
        let dispatched = gateway.sum("switchyard_expert_tokens_total")
        let overCapacity = gateway.sum("switchyard_dropped_tokens_total", "reason=\"capacity\"")
        #expect(dispatched == routed - overCapacity)
        #expect(gateway["switchyard_experts_complete"] == 1)
        #expect(gateway["switchyard_ready"] == 1)
        #expect(gateway["switchyard_rpc_open_calls"] == 0)

        var computed = 0.0
        for process in cluster.hosts.running {
            let host = try await Scrape(process)
            let pool = String(process.name.prefix { $0 != "/" })
            let labels = "{pool=\"\(pool)\",replica=\"\(process.address)\"}"
            let calls = try #require(host["switchyard_host_calls_total{work=\"serving\",outcome=\"ok\"}"])
            #expect(host["switchyard_rpc_calls_total{method=\"Forward\",code=\"OK\"}"] == calls)
            #expect(gateway["switchyard_expert_calls_total{pool=\"\(pool)\"}"] == calls)
            #expect(gateway["switchyard_expert_call_seconds_count\(labels)"] == calls)
            #expect(gateway.sum("switchyard_expert_attempts_total", "replica=\"\(process.address)\"") == calls)
            let rows = try #require(host["switchyard_host_rows_total{work=\"serving\"}"])
            #expect(gateway["switchyard_expert_rows_total\(labels)"] == rows)
            #expect(host.sum("switchyard_host_expert_rows_total") == rows)
            #expect(host["switchyard_host_pass_rows_sum"] == rows)
            let sent = try #require(gateway["switchyard_expert_sent_bytes_total\(labels)"])
            let received = try #require(host["switchyard_rpc_received_bytes_total"])
            // Every row is at least a hundred bytes; the gateway has sent what the host has read.
            #expect(received > 100 * rows)
            #expect(sent >= received)
            #expect(host["switchyard_ready"] == 1)
            computed += rows
            try await Self.check(host, component: "expert-host")
        }
        #expect(computed == dispatched)
        try await Self.check(gateway, component: "gateway")
    }

    /// Every scrape is well-formed, and the process identifies itself.
    private static func check(_ scrape: Scrape, component: String) async throws {
        let said = try await scrape.promtool()
        #expect(said == "")
        let families = scrape.families
        #expect(families.count > 30)
        #expect(Set(families).count == families.count)
        for family in families {
            #expect(scrape.text.contains("# HELP \(family) "), "\(family)")
        }
        #expect(scrape.sum("switchyard_build_info", "component=\"\(component)\"") == 1)
        #expect(scrape.sum("switchyard_model_info", "dtype=\"") == 1)
        #expect((scrape["process_resident_memory_bytes"] ?? 0) > 1_048_576)
        #expect((scrape["process_open_fds"] ?? 0) > 3)
    }

    @Test("a port is open before its service is ready, and reports that weights are loading")
    func early() async throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("admin-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: file) }
        let port = AdminPort(
            component: "gateway",
            configuration: AdminServerConfiguration(host: "127.0.0.1", port: 0),
            expertSeriesLimit: 10,
            addressFile: file
        )
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        try await AdminPort.run(port, logger: logger) {
            let address = try String(contentsOfFile: file, encoding: .utf8).trimmingCharacters(in: .newlines)
            let loading = try await AdminClient.get("/readyz", of: address)
            #expect(loading.status == 503)
            #expect(loading.body == "not ready\nloading weights\n")
            let live = try await AdminClient.get("/livez", of: address)
            #expect(live.status == 200)
            let early = try await AdminClient.get("/metrics", of: address)
            #expect(early.body.contains("\nswitchyard_ready 0\n"))
            #expect(early.body.contains("\nprocess_open_fds "))
            port.attach(
                readiness: { Readiness(isReady: true) },
                collect: { $0.set(MetricCatalog.engine.batchSlots, $1) }
            )
            let ready = try await AdminClient.get("/readyz", of: address)
            #expect(ready.status == 200)
            let late = try await AdminClient.get("/metrics", of: address)
            #expect(late.body.hasSuffix("\nswitchyard_batch_slots 10\n"))
            #expect(!late.body.contains("process_"))
        }
    }

    @Test("probes report that a process is ready, then that it drains while it still answers")
    func probes() async throws {
        try await TestCluster.runProcesses(
            pools: 1,
            adminListen: "127.0.0.1:0",
            onGatewayExit: .accept
        ) { cluster in
            for process in cluster.processes {
                let ready = try await AdminClient.get("/readyz", of: process.adminAddress)
                #expect(ready.status == 200)
                #expect(ready.body == "ready\n")
                let live = try await AdminClient.get("/livez", of: process.adminAddress)
                #expect(live.status == 200)
                let missing = try await AdminClient.get("/", of: process.adminAddress)
                #expect(missing.status == 404)
            }
            // The gateway first, as processes are stopped.
            for process in cluster.processes { try await Self.drain(process) }
        }
    }

    /// Tells a process to stop while an open call delays the drain, and asks whether it is ready.
    private static func drain(_ process: ChildProcess) async throws {
        try await withHostChannel(process) { channel in
            let method = Method(service: "grpc.reflection.v1.ServerReflection", name: "ServerReflectionInfo")
            let call = channel.bidirectional(method, options: CallOptions(waitForReady: true))
            try await call.requests.write(
                Payload(bytes: ServerReflectionRequest(question: .listServices("")).serialized())
            )
            var responses = call.responses.makeAsyncIterator()
            _ = try #require(try await responses.next())
            signal(SIGTERM, to: process)
            var answer = try await AdminClient.get("/readyz", of: process.adminAddress)
            while answer.status == 200 {
                answer = try await AdminClient.get("/readyz", of: process.adminAddress)
            }
            #expect(answer.status == 503)
            #expect(answer.body == "not ready\ndraining\n")
            let live = try await AdminClient.get("/livez", of: process.adminAddress)
            #expect(live.status == 200)
            let scrape = try await Scrape(process)
            #expect(scrape["switchyard_ready"] == 0)
            #expect(scrape["switchyard_rpc_open_calls"] == 1)
        }
    }
}
