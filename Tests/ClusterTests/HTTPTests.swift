// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import PeerTools
import SwitchyardClient
import SwitchyardProtos
import Testing

@testable import switchyard

private let hasCurl = Peers.mayRun("curl")
private let hasPython = Peers.mayRun(Peers.python)
private let pythonHint: Comment = "make test sets SWITCHYARD_TEST_PYTHON"
private let hasTriton = Peers.mayRun(Peers.tritonPython)
private let tritonHint: Comment = "make test makes an environment with tritonclient"
private let hasEvaluation = Peers.mayRun(Peers.evaluationPython)
private let evaluationHint: Comment = "make lm-eval makes an environment with lm-evaluation-harness"

/// A cluster whose gateway answers HTTP, and how to ask it.
struct WebCluster: Sendable {
    let cluster: LocalCluster
    let client: GatewayClient
    /// `host:port` of HTTP.
    let address: String

    static let promptsFile = "\(TestCluster.miniature)/prompts.json"

    static func run(
        pools: Int = 2,
        replicas: Int = 1,
        gatewayArguments: [String] = [],
        hostArguments: [String] = [],
        model: String = TestCluster.miniature,
        onGatewayExit: ChildExitPolicy = .fail,
        _ body: @escaping @Sendable (WebCluster) async throws -> Void
    ) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("http-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let file = "\(folder)/address"
        let arguments = ["--http-listen", "127.0.0.1:0", "--http-address-file", file] + gatewayArguments
        try await TestCluster.run(
            pools: pools,
            replicas: replicas,
            gatewayArguments: arguments,
            hostArguments: hostArguments,
            model: model,
            onGatewayExit: onGatewayExit
        ) { client, cluster in
            let text = try String(contentsOfFile: file, encoding: .utf8)
            let address = text.trimmingCharacters(in: .whitespacesAndNewlines)
            try await body(WebCluster(cluster: cluster, client: client, address: address))
        }
    }

    /// An answer of curl.
    struct Answer: Sendable {
        var status: Int
        var head: String
        var body: String
        /// The version of HTTP, such as 1.1 or 2.
        var version: String

        /// The body as JSON.
        var json: [String: Any] {
            (try? JSONSerialization.jsonObject(with: Data(self.body.utf8)) as? [String: Any]) ?? [:]
        }
    }

    /// Asks with curl.
    func ask(_ path: String, _ body: String? = nil, _ more: [String] = []) async throws -> Answer {
        var arguments = ["--silent", "--show-error", "--no-buffer", "--max-time", "300", "--include"]
        arguments += ["--write-out", "\n%{http_code} %{http_version}"] + more
        if let body { arguments += ["--header", "content-type: application/json", "--data-binary", body] }
        let url = path.contains("://") ? path : "http://\(self.address)\(path)"
        let output = try await PeerProcess.run(try Peers.path("curl"), arguments + [url])
        let parts = output.text.components(separatedBy: "\r\n\r\n")
        let rest = parts.dropFirst().joined(separator: "\r\n\r\n")
        let lines = rest.components(separatedBy: "\n")
        let last = (lines.last ?? "").split(separator: " ")
        guard last.count == 2, let status = Int(last[0]) else {
            throw PeerError(description: "curl ended with \(output.status): \(output.text) \(output.errors)")
        }
        return Answer(
            status: status,
            head: parts[0].lowercased(),
            body: lines.dropLast().joined(separator: "\n"),
            version: String(last[1])
        )
    }

    /// The values of `data` in server-sent events.
    static func events(_ text: String) -> [String] {
        text.components(separatedBy: "\n\n").filter { $0.hasPrefix("data: ") }.map { String($0.dropFirst(6)) }
    }
}

@Suite("HTTP and JSON", .serialized, .timeLimit(.minutes(15)))
struct HTTPTests {
    @Test(
        "three dialects answer as gRPC does, over HTTP/1.1 and HTTP/2",
        .enabled(if: hasCurl),
        arguments: [["--http1.1"], ["--http2-prior-knowledge"]]
    )
    func dialects(version: [String]) async throws {
        let prompts = try TestCluster.prompts()
        try await WebCluster.run { web in
            let prompt = prompts[0]
            let expected = try await web.client.generate(GenerateRequest(input: .text(prompt.prompt)))
            let text = expected.generations[0].text
            let quoted = String(decoding: try JSONEncoder().encode(prompt.prompt), as: UTF8.self)

            let own = try await web.ask("/v1/generate", #"{"text":\#(quoted)}"#, version)
            #expect(own.status == 200)
            #expect(own.version == (version[0] == "--http1.1" ? "1.1" : "2"))
            let generation = try #require((own.json["generations"] as? [[String: Any]])?.first)
            #expect(generation["tokenIds"] as? [Int] == prompt.tokenIDs.map(Int.init))
            #expect(generation["text"] as? String == text)

            let model = try #require(
                ((try await web.ask("/v1/models", nil, version)).json["data"] as? [[String: Any]])?.first?["id"]
                    as? String
            )
            let body = #"{"model":"\#(model)","prompt":\#(quoted),"max_tokens":40,"temperature":0,"stream":true}"#
            let stream = try await web.ask("/v1/completions", body, version)
            #expect(stream.head.contains("content-type: text/event-stream"))
            let events = WebCluster.events(stream.body)
            #expect(events.last == "[DONE]")
            let texts = try events.dropLast()
                .map { event in
                    let object = try #require(
                        try JSONSerialization.jsonObject(with: Data(event.utf8)) as? [String: Any]
                    )
                    return try #require((object["choices"] as? [[String: Any]])?.first?["text"] as? String)
                }
            #expect(texts.joined() == text)
            #expect(texts.count == prompt.tokenIDs.count + 1)

            let plain = try await web.ask("/generate", #"{"inputs":\#(quoted)}"#, version)
            #expect(plain.json["generated_text"] as? String == text)
            let root = try await web.ask("/", #"{"inputs":\#(quoted)}"#, version)
            #expect(root.body.hasPrefix("[{"))
            let own2 = try await web.ask("/v1/generate_stream", #"{"text":\#(quoted)}"#, version)
            #expect(WebCluster.events(own2.body).count == prompt.tokenIDs.count + 1)

            #expect(try await web.ask("/health", nil, version).status == 200)
            #expect(try await web.ask("/info", nil, version).json["model_id"] as? String == model)
            #expect(try await web.ask("/v1/cluster", nil, version).json["complete"] as? Bool == true)
            let described = try await web.ask("/v1/model", nil, version).json["sparseLayers"] as? [Any]
            #expect(described?.count == 4)
            #expect(try await web.ask("/openapi.json", nil, version).json["openapi"] as? String == "3.1.0")
        }
    }

    @Test("errors have each dialect's form and status", .enabled(if: hasCurl))
    func errors() async throws {
        try await WebCluster.run(
            pools: 1,
            gatewayArguments: ["--max-input-tokens", "16", "--http-max-body-bytes", "2000"]
        ) { web in
            let long = String(repeating: "word ", count: 50)
            let tooLong = try await web.ask("/v1/completions", #"{"model":"switch-mini","prompt":"\#(long)"}"#)
            #expect(tooLong.status == 400)
            let error = try #require(tooLong.json["error"] as? [String: Any])
            #expect(error["code"] as? String == "context_length_exceeded")
            #expect(error["param"] as? String == "prompt")
            #expect((error["message"] as? String)?.contains("16") == true, "\(tooLong.body)")
            let validation = try await web.ask("/generate", #"{"inputs":"\#(long)"}"#)
            #expect(validation.status == 422)
            #expect(validation.json["error_type"] as? String == "validation")
            let own = try await web.ask("/v1/score", #"{"text":"a"}"#)
            #expect(own.status == 400)
            #expect(own.json["code"] as? Int == 3)
            let chat = try await web.ask("/v1/chat/completions", #"{"model":"switch-mini","messages":[]}"#)
            #expect(chat.status == 404 && chat.body.contains("not a chat model"))
            let large = try await web.ask("/v1/generate", #"{"text":"\#(String(repeating: "x", count: 3_000))"}"#)
            #expect(large.status == 413)
            #expect(try await web.ask("/v1/generate", nil, ["--data", "text=a"]).status == 415)
            let deadline = try await web.ask(
                "/v1/generate",
                #"{"text":"a"}"#,
                ["--header", "switchyard-timeout-ms: soon"]
            )
            #expect(deadline.status == 400)
            let method = try await web.ask("/v1/generate")
            #expect(method.status == 405 && method.head.contains("allow: post"))
            #expect(try await web.ask("/nowhere").status == 404)
            let head = try await web.ask("/health", nil, ["--head"])
            #expect(head.status == 200)
            let origin = ["--header", "origin: https://app.test"]
            #expect(try await !web.ask("/health", nil, origin).head.contains("access-control"))
        }
    }

    @Test("requests, connections and bytes are counted, and a trace goes on through the gateway", .enabled(if: hasCurl))
    func metricsAndTraces() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("http-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let file = "\(folder)/address"
        let log = ProcessLog()
        try await TestCluster.runProcesses(
            pools: 1,
            gatewayArguments: ["--http-listen", "127.0.0.1:0", "--http-address-file", file],
            hostArguments: ["--log-level", "debug"],
            adminListen: "127.0.0.1:0",
            log: log
        ) { cluster in
            let address = try String(contentsOfFile: file, encoding: .utf8)
                .trimmingCharacters(in: .whitespacesAndNewlines)
            func ask(_ path: String, _ more: [String]) async throws -> String {
                let fixed = ["--silent", "--include", "--max-time", "300"]
                return try await PeerProcess.run(try Peers.path("curl"), fixed + more + ["http://\(address)\(path)"])
                    .text
            }
            let trace = "4bf92f3577b34da6a3ce929d0e0e4736"
            let json = ["--header", "content-type: application/json"]
            let answer = try await ask(
                "/v1/generate",
                json + [
                    "--header", "traceparent: 00-\(trace)-00f067aa0ba902b7-01", "--data-binary",
                    #"{"text":"my <extra_id_0> for a horse!"}"#,
                ]
            )
            let told = try #require(answer.firstMatch(of: /traceresponse: 00-([0-9a-f]{32})-([0-9a-f]{16})-01/))
            #expect(told.output.1 == trace && told.output.2 != "00f067aa0ba902b7", "\(answer)")
            _ = try await ask("/v1/completions", json + ["--data-binary", #"{"model":"gpt","prompt":"a"}"#])
            _ = try await ask("/v1/models/gpt", [])
            _ = try await ask("/nowhere/\(UUID().uuidString)", [])
            _ = try await ask("/generate", ["--data-binary", "text"])
            // The host's call is a span of the same trace; lines come through pipes.
            try await FaultTests.eventually {
                log.lines.contains { $0.hasPrefix("[pool-0/0]") && $0.contains("trace_id=\(trace)") }
                    && log.lines.contains { line in
                        [
                            "[gateway]", "trace_id=\(trace)", "gen_ai.operation.name=text_completion",
                            "gen_ai.usage.output_tokens=",
                        ]
                        .allSatisfy { line.contains($0) }
                    }
            }
            let gateway = try #require(cluster.gateway.running.first)
            // A request ends a moment after its client has the answer.
            try await FaultTests.eventually { try await Scrape(gateway)["switchyard_http_open_requests"] == 0 }
            let scrape = try await Scrape(gateway)
            for (route, dialect, status) in [
                ("/v1/generate", "own", 200), ("/v1/completions", "openai", 404), ("/v1/models/{model}", "openai", 404),
                ("unknown", "own", 404), ("/generate", "tgi", 415),
            ] {
                let series =
                    #"switchyard_http_requests_total{route="\#(route)",dialect="\#(dialect)",status="\#(status)"}"#
                #expect(scrape[series] == 1, "\(series)")
            }
            #expect(scrape["switchyard_http_connections_opened_total"] == 5)
            #expect(scrape["switchyard_http_connections_refused_total"] == 0)
            #expect(scrape["switchyard_http_held_bytes"] == 0)
            #expect((scrape["switchyard_http_received_bytes_total"] ?? 0) > 500)
            #expect((scrape["switchyard_http_sent_bytes_total"] ?? 0) > Double(answer.utf8.count))
        }
    }

    @Test("a client that leaves frees its batch slot", .enabled(if: hasCurl))
    func leaving() async throws {
        try await WebCluster.run(pools: 1, gatewayArguments: ["--batch-slots", "1", "--guest-slots", "0"]) { web in
            let body = #"{"text":"a","parameters":{"maxNewTokens":1000,"minNewTokens":1000}}"#
            for path in ["/v1/generate", "/v1/generate_stream"] {
                for version in ["--http1.1", "--http2-prior-knowledge"] {
                    let arguments = [
                        "--silent", "--max-time", "1", version, "--header", "content-type: application/json",
                        "--data-binary",
                        body, "http://\(web.address)\(path)",
                    ]
                    let output = try await PeerProcess.run(try Peers.path("curl"), arguments)
                    // Either it was still at work, or this machine is fast.
                    #expect([0, 28].contains(output.status))
                }
            }
            // With the one slot taken for good, this would wait for ever.
            let answer = try await web.client.generate(GenerateRequest(input: .text("my <extra_id_0> for a horse!")))
            #expect(!answer.generations.isEmpty)
            while try await web.client.describeCluster().gateway?.running != 0 {
                try await Task.sleep(for: .milliseconds(20))
            }
        }
    }

    @Test("certificates and tokens are those of gRPC", .enabled(if: hasCurl))
    func secure() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("https-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let certs = try await Commands.run(
            TestCluster.executable,
            ["certs", "--out", folder, "--host", "127.0.0.1", "--expert-host", "experts.test"]
        )
        #expect(certs.status == 0, "\(certs.errors)")
        let token = "0123456789abcdef0123456789abcdef"
        try "tester:\(token)\n".write(toFile: "\(folder)/tokens", atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: "\(folder)/tokens")
        let file = "\(folder)/address"
        let arguments = [
            "--http-listen", "127.0.0.1:0", "--http-address-file", file, "--tls-certificate", "\(folder)/gateway.pem",
            "--tls-key", "\(folder)/gateway-key.pem", "--tls-client-ca", "\(folder)/ca.pem", "--tls-allowed-clients",
            "spiffe://switchyard/client", "--tokens", "\(folder)/tokens", "--http-origins", "https://app.test",
        ]
        try await TestCluster.runProcesses(pools: 1, gatewayArguments: arguments) { cluster in
            let address = try String(contentsOfFile: file, encoding: .utf8)
                .trimmingCharacters(in: .whitespacesAndNewlines)
            let curl = try Peers.path("curl")
            func ask(_ more: [String], _ path: String = "/v1/models") async throws -> PeerProcess.Output {
                let fixed = [
                    "--silent", "--include", "--max-time", "60", "--write-out", "\n%{http_code} %{http_version}",
                    "--cacert", "\(folder)/ca.pem",
                ]
                return try await PeerProcess.run(curl, fixed + more + ["https://\(address)\(path)"])
            }
            let certificate = ["--cert", "\(folder)/client.pem", "--key", "\(folder)/client-key.pem"]
            let bearer = ["--header", "authorization: Bearer \(token)"]
            #expect(try await ask(certificate + bearer).text.hasSuffix("200 2"))
            #expect(try await ask(certificate + bearer + ["--http1.1"]).text.hasSuffix("200 1.1"))
            let missing = try await ask(certificate)
            #expect(missing.text.hasSuffix("401 2") && missing.text.contains("www-authenticate: Bearer"))
            let wrong = try await ask(certificate + ["--header", "authorization: Bearer \(token.reversed())0"])
            #expect(wrong.text.hasSuffix("401 2") && wrong.text.contains("invalid_api_key"))
            #expect(try await ask(certificate, "/health").text.hasSuffix("200 2"))
            #expect(try await ask(bearer).status != 0)
            let stranger = ["--cert", "\(folder)/gateway.pem", "--key", "\(folder)/gateway-key.pem"]
            #expect(try await ask(stranger + bearer).status != 0)
            let preflight = [
                "--request", "OPTIONS", "--header", "origin: https://app.test", "--header",
                "access-control-request-method: POST",
            ]
            let allowed = try await ask(certificate + preflight)
            #expect(
                allowed.text.hasSuffix("204 2")
                    && allowed.text.contains("access-control-allow-origin: https://app.test")
            )
        }
    }

    @Test("a gateway that drains answers what it has and takes no more", .enabled(if: hasCurl))
    func draining() async throws {
        // It ends by itself, whether the test is over or not.
        try await WebCluster.run(pools: 1, onGatewayExit: .accept) { web in
            let body = #"{"text":"a","parameters":{"maxNewTokens":200,"minNewTokens":200}}"#
            async let answer = web.ask("/v1/generate", body)
            while try await web.client.describeCluster().gateway?.running == 0 {
                try await Task.sleep(for: .milliseconds(5))
            }
            let gateway = try #require(web.cluster.gateway.running.first)
            signal(SIGTERM, to: gateway)
            #expect(try await answer.status == 200)
        }
    }
}

@Suite("Other people's clients of HTTP", .serialized, .timeLimit(.minutes(20)))
struct HTTPPeerTests {
    private static func script(_ command: String, _ web: WebCluster, _ more: [String] = []) async throws -> [String:
        Any]
    {
        try await PeerProcess.script(
            "http_clients.py",
            [command, "http://\(web.address)", web.cluster.gatewayAddress, WebCluster.promptsFile] + more
        )
    }

    @Test("openai: completions, streams, log-probabilities, embeddings, errors", .enabled(if: hasPython, pythonHint))
    func openAI() async throws {
        let prompts = try TestCluster.prompts()
        try await WebCluster.run { web in
            var texts: [String] = []
            for prompt in prompts {
                texts.append(
                    try await web.client.generate(GenerateRequest(input: .text(prompt.prompt))).generations[0].text
                )
            }
            let report = try await Self.script("openai", web)
            #expect(report["model"] as? String == "switch-mini")
            #expect(report["retrieved"] as? String == "switch-mini")
            #expect(report["texts"] as? [String] == texts)
            #expect(report["finish"] as? [String] == ["stop"])
            #expect(report["tokens"] as? Int == prompts[0].tokenIDs.count)
            #expect(report["lists"] as? [Int] == [prompts[0].tokenIDs.count])
            #expect(report["best_first"] as? Bool == true)
            #expect(report["usage"] as? Int == prompts.reduce(0) { $0 + $1.tokenIDs.count })
            #expect(report["streamed"] as? [String] == Array(texts.prefix(2)))
            #expect((report["stream_usage"] as? Int ?? 0) > 0)
            #expect(report["same_seed"] as? Bool == true)
            #expect((report["width"] as? [Int])?.count == 1)
            #expect(report["embedding"] as? [String] == report["floats"] as? [String])
            let errors = try #require(report["errors"] as? [String: [Any]])
            #expect(errors["chat"]?[0] as? String == "NotFoundError")
            #expect(errors["model"]?[0] as? String == "NotFoundError")
            // The prompt does not say where the encoder's text ends.
            #expect(errors["echo"]?[2] as? String == "echo")
            #expect((errors["echo"]?[3] as? String)?.contains("write </s>") == true)
            let echoed = try #require(report["echoed"] as? [String: Any])
            #expect(echoed["text"] as? String == "\(prompts[0].prompt)</s>\(texts[0])")
            #expect(echoed["same_score"] as? Bool == true)
            #expect(echoed["nulls"] as? Int == echoed["border"] as? Int)
            #expect(echoed["border_logprob"] as? Double == 0)
            #expect(echoed["generated"] as? Int == 0)
            #expect(errors["tokens"]?[0] as? String == "BadRequestError")
            #expect(errors["tokens"]?[2] as? String == "max_tokens")
        }
    }

    @Test("huggingface_hub's InferenceClient: text, details, streams, errors", .enabled(if: hasPython, pythonHint))
    func huggingFace() async throws {
        let prompt = try #require(try TestCluster.prompts().first)
        try await WebCluster.run { web in
            let text = try await web.client.generate(GenerateRequest(input: .text(prompt.prompt))).generations[0].text
            let report = try await Self.script("huggingface", web)
            #expect(report["text"] as? String == text)
            #expect(report["ids"] as? [Int] == prompt.tokenIDs.map(Int.init))
            #expect(report["finish"] as? String == "eos_token")
            #expect(report["last"] as? String == text)
            #expect(report["last_finish"] as? String == "eos_token")
            #expect((report["error"] as? [String])?[1].contains("temperature") == true)
        }
    }

    @Test("litellm: completions, streams, embeddings", .enabled(if: hasPython, pythonHint))
    func litellm() async throws {
        let prompt = try #require(try TestCluster.prompts().first)
        try await WebCluster.run { web in
            let text = try await web.client.generate(GenerateRequest(input: .text(prompt.prompt))).generations[0].text
            let report = try await Self.script("litellm", web)
            #expect(report["text"] as? String == text)
            #expect(report["streamed"] as? String == text)
            #expect((report["width"] as? Int ?? 0) > 0)
        }
    }

    @Test(
        "tritonclient over HTTP: metadata, readiness, tensors in JSON and as bytes",
        .enabled(if: hasTriton, tritonHint)
    )
    func triton() async throws {
        let prompts = try TestCluster.prompts().prefix(3)
        try await WebCluster.run { web in
            let report = try await PeerProcess.script(
                "triton_http_client.py",
                [web.address, "switch-mini"] + prompts.map(\.prompt),
                with: Peers.tritonPython
            )
            for name in ["live", "ready", "model_ready", "version_ready"] {
                #expect(report[name] as? Bool == true, "\(name)")
            }
            #expect(report["other_ready"] as? Bool == false)
            #expect(report["server"] as? String == "switchyard")
            #expect(report["inputs"] as? [String] == ["text_input", "input_ids"])
            #expect(report["id"] as? String == "mine")
            var texts: [[String]] = []
            var scores: [[Double]] = []
            for prompt in prompts {
                let answer = try await web.client.generate(GenerateRequest(input: .text(prompt.prompt)))
                texts.append([answer.generations[0].text])
                scores.append([Double(answer.generations[0].score)])
            }
            let ids = prompts.map { [$0.tokenIDs.map(Int.init)] }
            #expect(report["ids"] as? [[[Int]]] == ids)
            #expect(report["texts"] as? [[String]] == texts)
            let forms = try #require(report["forms"] as? [[Any]])
            #expect(forms.count == 6)
            for form in forms {
                #expect(form[0] as? [[[Int]]] == ids)
                #expect(form[1] as? [[String]] == texts)
                for (score, expected) in zip(try #require(form[2] as? [[Double]]), scores) {
                    #expect(abs(score[0] - expected[0]) < 1e-5)
                }
            }
            var beams = GenerateRequest(input: .text(prompts[0].prompt))
            beams.parameters = GenerationParameters(maxNewTokens: 6, numBeams: 3, numReturnSequences: 2)
            let best = try await web.client.generate(beams).generations
            #expect(report["beams"] as? [[[Int]]] == [best.map { $0.tokenIDs.map(Int.init) }])
            var given = GenerateRequest(input: .tokenIDs([261, 28, 9, 2047, 1]))
            given.parameters = GenerationParameters(maxNewTokens: 4)
            let fromIDs = try await web.client.generate(given).generations.map { $0.tokenIDs.map(Int.init) }
            #expect(report["from_ids"] as? [[[[Int]]]] == [[fromIDs], [fromIDs]])
            let refused = try #require(report["refused"] as? [String: [String: String]])
            for (name, status, word) in [
                ("model", "404", "another"), ("version", "404", "another"), ("parameter", "400", "colour"),
                ("sequence", "400", "sequence_"), ("output", "400", "logits"), ("classes", "400", "classification"),
                ("compressed", "415", "content-encoding"),
            ] {
                #expect(refused[name]?["status"] == status, "\(refused)")
                #expect(refused[name]?["message"]?.contains(word) == true, "\(refused)")
            }
        }
    }

    /// A question of `Tests/Fixtures/lm-eval`, with the log-probabilities of its answers by another implementation.
    private struct Question: Decodable {
        var question: String
        var choices: [String]
        var reference: [Double]
        var greedy: [Bool]
    }

    @Test(
        "lm-evaluation-harness: a task's log-probabilities are those of Score, and of transformers and labml_nn",
        .enabled(if: hasEvaluation, evaluationHint),
        arguments: [("switch-mini", false), ("switch-mini", true), ("labml-mini", false)]
    )
    func evaluationHarness(model: String, hasOwnTokenizer: Bool) async throws {
        let folder = "\(TestCluster.root)/deploy/models/\(model)"
        let file = "\(TestCluster.root)/Tests/Fixtures/lm-eval/\(model).jsonl"
        let isT5 = model == "switch-mini"
        let questions = try String(contentsOfFile: file, encoding: .utf8).split(separator: "\n")
            .map { try JSONDecoder().decode(Question.self, from: Data($0.utf8)) }
        #expect(questions.count >= 6)
        try await WebCluster.run(model: folder) { web in
            let report = try await PeerProcess.script(
                "lm_eval_client.py",
                ["http://\(web.address)", model, file, isT5 ? "</s>" : ""] + (hasOwnTokenizer ? [folder] : []),
                with: Peers.evaluationPython
            )
            #expect(report["accuracy"] as? Double == 1)
            let sums = try #require(report["logprobs"] as? [[Double]])
            #expect(report["greedy"] as? [[Bool]] == questions.map(\.greedy))
            try #require(sums.count == questions.count)
            for (question, found) in zip(questions, sums) {
                for (index, choice) in question.choices.enumerated() {
                    let scored = try await Self.score(question.question, choice, isT5: isT5, web.client)
                    #expect(abs(found[index] - scored) < 1e-4, "\(choice)")
                    #expect(abs(found[index] - question.reference[index]) < 1e-3, "\(choice)")
                }
            }
        }
    }

    /// The sum of an answer's log-probabilities by the method Score.
    private static func score(
        _ question: String,
        _ choice: String,
        isT5: Bool,
        _ client: GatewayClient
    ) async throws -> Double {
        var request = ScoreRequest()
        if isT5 {
            // The tokenizer adds the end token that the choice has as text.
            request.input = .text(question)
            request.target = .text(String(choice.dropLast("</s>".count)))
        } else {
            // The harness moves spaces at a question's end before the answer.
            let stem = question.replacing(/\s+$/, with: "")
            request.input = .text(stem)
            request.target = .text(String(question.dropFirst(stem.count)) + choice)
        }
        return try await client.score(request).logprobs.reduce(0.0) { $0 + Double($1.logprob) }
    }

    @Test("protobuf's own reader understands every answer as the message of gRPC", .enabled(if: hasPython, pythonHint))
    func mapping() async throws {
        try await WebCluster.run { web in
            let report = try await Self.script("mapping", web)
            for key in ["generate", "score", "encode", "model"] { #expect(report[key] as? Bool == true, "\(key)") }
            #expect(report["cluster"] as? [String] == ["pool-0", "pool-1"])
        }
    }

    @Test("the token ids of 500 requests are those of gRPC", .enabled(if: hasPython, pythonHint))
    func equal() async throws {
        try await WebCluster.run { web in
            let report = try await Self.script("equal", web, ["500"])
            #expect(report["requests"] as? Int == 500)
            #expect(report["different"] as? Int == 0)
        }
    }

    private static func attack(_ command: String, _ web: WebCluster) async throws -> [String: Any] {
        let gateway = try #require(web.cluster.gateway.running.first)
        return try await PeerProcess.script("http_attacks.py", [command, web.address, "\(gateway.processIdentifier)"])
    }

    @Test("malformed requests are refused, and good ones answered meanwhile", .enabled(if: hasPython, pythonHint))
    func malformed() async throws {
        try await WebCluster.run(pools: 1) { web in
            let report = try await Self.attack("malformed", web)
            #expect((report["tried"] as? Int ?? 0) > 60)
            #expect((report["wrong"] as? [Any])?.isEmpty == true, "\(report)")
            #expect((report["growth_kib"] as? Int ?? .max) < 192 << 10, "\(report)")
        }
    }

    @Test("of a flood each client is answered or told when to come back", .enabled(if: hasPython, pythonHint))
    func flood() async throws {
        try await WebCluster.run(pools: 1, gatewayArguments: ["--queue-limit", "16", "--batch-slots", "8"]) { web in
            let report = try await Self.attack("flood", web)
            let answered = report["answered"] as? Int ?? 0
            let refused = report["refused"] as? Int ?? 0
            #expect(answered + refused == 400, "\(report)")
            #expect(answered > 0 && report["hints"] as? Int == refused)
            #expect(report["is_well"] as? Bool == true)
            #expect((report["growth_kib"] as? Int ?? .max) < 128 << 10, "\(report)")
        }
    }

    @Test(
        "clients that neither read nor send are let go, and others are served meanwhile",
        .enabled(if: hasPython, pythonHint)
    )
    func slow() async throws {
        try await WebCluster.run(pools: 1) { web in
            let report = try await Self.attack("slow", web)
            #expect(report["is_well"] as? Bool == true, "\(report)")
            #expect(report["left"] as? Int == 0, "\(report)")
            #expect((report["growth_kib"] as? Int ?? .max) < 256 << 10, "\(report)")
        }
    }
}
