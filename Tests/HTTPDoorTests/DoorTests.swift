// SPDX-License-Identifier: Apache-2.0

import DoorPage
import HTTPTypes
import JSONValues
import NIOCore
import NIOEmbedded
import RPCCore
import SwitchyardProtos
import Testing

@testable import HTTPDoor

@Suite("Addresses, faults and openings of the door")
struct DoorTests {
    @Test("every address of the table is found, by its own method alone")
    func routes() throws {
        for entry in DoorRoute.table {
            let path = entry.path.replacing("{model}", with: "google%2Fswitch").replacing("{version}", with: "7")
            let route = try DoorRoute.find(entry.method, path)
            #expect(route.action == entry.action)
            #expect(route.template == entry.path)
            #expect(route.model == (entry.path.contains("{model}") ? "google/switch" : ""))
            #expect(route.version == (entry.path.contains("{version}") ? "7" : ""))
            let missing = #expect(throws: DoorRoute.Missing.self) { try DoorRoute.find("DELETE", path) }
            #expect(missing?.fault.status == 405)
            #expect(missing?.allowed?.contains(entry.method) == true)
        }
        #expect(try DoorRoute.find("HEAD", "/health").action == .health)
        #expect(try DoorRoute.find("GET", "/v1/models/google/switch-base-8").model == "google/switch-base-8")
        let infer = try DoorRoute.find("POST", "/v2/models/a/versions/b/versions/c/infer")
        #expect(infer.model == "a/versions/b" && infer.version == "c")
        #expect(try DoorRoute.find("GET", "/v2/models/google/switch/ready").model == "google/switch")
        let wrong = #expect(throws: DoorRoute.Missing.self) { try DoorRoute.find("GET", "/v2/models/a/infer") }
        #expect(wrong?.fault.status == 405 && wrong?.dialect == .openInference)
        for (path, status) in [
            ("/v2/models/", 404), ("/v2/", 404),
            ("/nothing", 404), ("", 404), ("/v1/completions/", 404), ("/health?x=1", 400), ("/v1/models/%zz", 404),
            ("/v1/models/", 404),
        ] {
            #expect(#expect(throws: DoorRoute.Missing.self) { try DoorRoute.find("GET", path) }?.fault.status == status)
        }
    }

    @Test(
        "a status of gRPC has its status of HTTP",
        arguments: [
            (Status.Code.invalidArgument, 400), (.failedPrecondition, 400), (.unauthenticated, 401),
            (.permissionDenied, 403),
            (.notFound, 404), (.unimplemented, 404), (.resourceExhausted, 400), (.cancelled, 499), (.internal, 500),
            (.unavailable, 503), (.deadlineExceeded, 408), (.unknown, 500), (.dataLoss, 500), (.aborted, 409),
        ]
    )
    func statuses(code: Status.Code, status: Int) {
        #expect(DoorFault(RPCError(code, "x")).status == status)
    }

    @Test("a full queue is 429 with the time to try again, rounded up to whole seconds")
    func retry() throws {
        var error = RPCError(.resourceExhausted, "the queue is full")
        error.askToRetry(after: .milliseconds(1_200))
        let fault = DoorFault(error)
        #expect(fault.status == 429 && fault.retryMilliseconds == 1_200)
        var fields: HTTPFields = [:]
        DoorHeaders.add(fault, to: &fields)
        #expect(fields[.retryAfter] == "2")
        #expect(fields[DoorHeaders.retryMilliseconds] == "1200")
        #expect(try json(Dialect.openAI.body(of: fault).text).at("error.type") == .string("rate_limit_error"))
        #expect(try json(Dialect.textGeneration.body(of: fault).text).at("error_type") == .string("overloaded"))
        #expect(Dialect.own.body(of: fault).text == #"{"code":8,"message":"the queue is full"}"#)
    }

    @Test(
        "a dialect's clients read their own names of fields",
        arguments: [
            (
                "parameters.max_new_tokens is 5; it must be from 1 to 4", "max_tokens is 5; it must be from 1 to 4",
                "max_tokens"
            ),
            ("text has 9 bytes", "prompt has 9 bytes", "prompt"),
            ("the length of parameters.stop[0] in bytes is 999", "the length of stop[0] in bytes is 999", "stop"),
            ("texture is wrong", "texture is wrong", nil),
        ]
    )
    func names(message: String, expected: String, field: String?) {
        let fault = DoorFault(RPCError(.invalidArgument, message)).renamed(Dialect.openAI.names)
        #expect(fault.message == expected)
        #expect(fault.field == field)
    }

    @Test("a connection's first bytes tell its protocol, however they are cut")
    func protocols() {
        let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
        for count in 0..<preface.count { #expect(DoorProtocol.of(preface.prefix(count)) == nil) }
        #expect(DoorProtocol.of(preface) == .http2)
        #expect(DoorProtocol.of(preface + [0, 0]) == .http2)
        #expect(DoorProtocol.of(Array("POST /".utf8)) == .http1)
        #expect(DoorProtocol.of(Array("PR0".utf8)) == .http1)
        #expect(DoorProtocol.of([UInt8(ascii: "G")]) == .http1)
    }

    @Test("what came before the protocol was known is passed on, once and whole")
    func opening() throws {
        let found = Found()
        let channel = EmbeddedChannel()
        try channel.pipeline.syncOperations.addHandler(
            OpeningHandler(
                isSecure: false,
                patience: .seconds(1),
                accept: { true },
                begin: { found.protocols.append($0) },
                fail: { found.failures += 1 }
            )
        )
        for part in ["P", "RI * HTTP/2.0\r\n\r\nSM\r\n", "\r\nrest"] {
            try channel.writeInbound(ByteBuffer(string: part))
        }
        #expect(found.protocols == [.http2])
        let passed = try #require(try channel.readInbound(as: ByteBuffer.self))
        #expect(String(buffer: passed) == "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrest")
        try channel.writeInbound(ByteBuffer(string: "more"))
        #expect(try channel.readInbound(as: ByteBuffer.self).map { String(buffer: $0) } == "more")
        _ = try? channel.finish()
        #expect(found.failures == 0)
    }

    @Test("a connection that says nothing is closed")
    func silence() throws {
        let found = Found()
        let channel = EmbeddedChannel()
        try channel.connect(to: try SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        try channel.pipeline.syncOperations.addHandler(
            OpeningHandler(
                isSecure: true,
                patience: .seconds(5),
                accept: { true },
                begin: { found.protocols.append($0) },
                fail: { found.failures += 1 }
            )
        )
        channel.embeddedEventLoop.advanceTime(by: .seconds(4))
        #expect(channel.isActive)
        channel.embeddedEventLoop.advanceTime(by: .seconds(2))
        #expect(!channel.isActive)
        #expect(found.protocols.isEmpty && found.failures == 1)
    }

    /// What a handler reported.
    private final class Found {
        var protocols: [DoorProtocol] = []
        var failures = 0
    }

    @Test("a client that reads nothing for long is closed, and one that reads again is not")
    func stall() throws {
        let channel = EmbeddedChannel()
        try channel.connect(to: try SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        try channel.pipeline.syncOperations.addHandler(WriteStallHandler(patience: .seconds(5)))
        channel.isWritable = false
        channel.pipeline.fireChannelWritabilityChanged()
        channel.embeddedEventLoop.advanceTime(by: .seconds(4))
        channel.isWritable = true
        channel.pipeline.fireChannelWritabilityChanged()
        channel.embeddedEventLoop.advanceTime(by: .seconds(60))
        #expect(channel.isActive)
        channel.isWritable = false
        channel.pipeline.fireChannelWritabilityChanged()
        channel.embeddedEventLoop.advanceTime(by: .seconds(6))
        #expect(!channel.isActive)
    }

    @Test("what is written in one turn is sent together, and before the end of the connection")
    func flushes() throws {
        let channel = EmbeddedChannel()
        try channel.connect(to: try SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        let flushes = Flushes()
        try channel.pipeline.syncOperations.addHandlers(flushes, FlushJoiner())
        for text in ["a", "b"] { channel.writeAndFlush(IOData.byteBuffer(ByteBuffer(string: text)), promise: nil) }
        #expect(flushes.count == 0)
        channel.embeddedEventLoop.run()
        #expect(flushes.count == 1)
        #expect(try channel.readOutbound(as: IOData.self) == .byteBuffer(ByteBuffer(string: "a")))
        #expect(try channel.readOutbound(as: IOData.self) == .byteBuffer(ByteBuffer(string: "b")))
        channel.writeAndFlush(IOData.byteBuffer(ByteBuffer(string: "c")), promise: nil)
        channel.close(promise: nil)
        #expect(flushes.count == 2)
        channel.embeddedEventLoop.run()
        #expect(flushes.count == 2)
    }

    /// Counts flushes.
    private final class Flushes: ChannelOutboundHandler {
        typealias OutboundIn = IOData

        var count = 0

        func flush(context: ChannelHandlerContext) {
            self.count += 1
            context.flush()
        }
    }

    @Test("bodies together take no more than their budget")
    func budget() {
        let budget = BodyBudget(limit: 10)
        #expect(budget.take(6) && budget.take(4) && !budget.take(1))
        budget.give(4)
        #expect(budget.take(3) && !budget.take(.max))
        #expect(budget.bytes == 9)
    }

    @Test("a body that takes too long is given up once, and one that has come never")
    func bodies() {
        var bodies = BodyDeadlines<String>()
        let now = ContinuousClock.now
        let first = bodies.began("first", until: now + .seconds(60))
        _ = bodies.began("second", until: now + .seconds(60))
        _ = bodies.began("third", until: now + .seconds(61))
        bodies.ended(first)
        #expect(bodies.overdue(now + .seconds(59)).isEmpty)
        #expect(bodies.overdue(now + .seconds(60)) == ["second"])
        #expect(bodies.overdue(now + .seconds(60)).isEmpty)
        #expect(bodies.overdue(now + .seconds(61)) == ["third"])
    }

    @Test("a call on a stream is cancelled once its client has left, and an answered one is not")
    func streams() async throws {
        let answered = DoorStream()
        #expect(try await answered.attended { Task.isCancelled } == false)
        answered.ended(.left)
        let left = DoorStream()
        let (begun, source) = AsyncStream.makeStream(of: Never.self)
        async let wasCancelled = left.attended {
            source.finish()
            try? await Task.sleep(for: .seconds(600))
            return Task.isCancelled
        }
        for await _ in begun {}
        left.ended(.left)
        #expect(try await wasCancelled)
        await #expect(throws: RPCError.self) {
            try await DoorStream().attended { throw RPCError(.unavailable, "there is no host") }
        }
    }

    @Test("what gathers is taken at once, and a fault after it")
    func queue() async throws {
        let queue = GenerationQueue()
        for event in Words.events.prefix(2) { queue.add(event) }
        var batch = try await queue.next()
        #expect(batch.events.count == 2 && !batch.isLast)
        queue.add(Words.events[2])
        queue.finish()
        queue.add(Words.events[3])
        queue.finish(RPCError(.internal, "too late"))
        batch = try await queue.next()
        #expect(batch.events.count == 1 && batch.isLast)

        let failing = GenerationQueue()
        failing.add(Words.events[0])
        failing.finish(RPCError(.unavailable, "there is no host"))
        batch = try await failing.next()
        #expect(batch.events.count == 1 && !batch.isLast)
        await #expect(throws: RPCError.self) { try await failing.next() }

        // Nothing would ever come.
        let silent = GenerationQueue()
        let task = Task { try await silent.next() }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
    }

    @Test("a channel's requests have a connection until it closes")
    func origin() throws {
        let channel = EmbeddedChannel()
        try channel.connect(to: try SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        let connections = DoorConnections(DoorConfiguration(host: "127.0.0.1", port: 0), counts: DoorCounts())
        #expect(connections.origin(of: channel) == nil)
        let connection = try #require(connections.arrived(channel))
        let origin = try #require(connections.origin(of: channel))
        #expect(origin.connection === connection && origin.stream == nil)
        // The channel of a stream that is not known any more.
        #expect(connections.origin(of: EmbeddedChannel()) == nil)
        _ = try? channel.finish()
        channel.embeddedEventLoop.run()
        #expect(connections.origin(of: channel) == nil && connections.count == 0)
    }

    @Test("only JSON is read, since any page could send a form")
    func contentType() {
        for type in ["application/json", "Application/JSON; charset=utf-8"] {
            #expect(throws: Never.self) { try DoorHeaders.checkType([.contentType: type], .completions) }
        }
        for fields: HTTPFields in [
            [:], [.contentType: "text/plain"], [.contentType: "application/x-www-form-urlencoded"],
            [.contentType: "application/octet-stream"],
            [.contentType: "application/json", .contentEncoding: "gzip"],
        ] {
            #expect(#expect(throws: DoorFault.self) { try DoorHeaders.checkType(fields, .completions) }?.status == 415)
        }
        // NVIDIA's client names no type; a page, of which a browser tells, may not do so.
        for fields: HTTPFields in [[:], [.contentType: "application/octet-stream", .origin: "https://a.test"]] {
            #expect(throws: Never.self) { try DoorHeaders.checkType(fields, .infer) }
        }
        for fields: HTTPFields in [[.origin: "https://a.test"], [.contentType: "text/plain"]] {
            #expect(#expect(throws: DoorFault.self) { try DoorHeaders.checkType(fields, .infer) }?.status == 415)
        }
    }

    @Test("pages of other origins may call only where they are named")
    func crossOrigin() throws {
        let request: HTTPFields = [.origin: "https://a.test", .accessControlRequestMethod: "POST"]
        let head = HTTPRequest(
            method: .options,
            scheme: nil,
            authority: nil,
            path: "/v1/completions",
            headerFields: request
        )
        #expect(CrossOrigin(origins: []).preflight(head) == nil)
        #expect(CrossOrigin(origins: []).fields(for: request).isEmpty)
        #expect(CrossOrigin(origins: ["https://b.test"]).preflight(head) == nil)
        for origins in [["https://a.test"], ["*"]] {
            let answer = try #require(CrossOrigin(origins: origins).preflight(head))
            #expect(answer.status == .noContent)
            #expect(answer.headerFields[.accessControlAllowOrigin] == origins[0])
            #expect(answer.headerFields[.accessControlAllowHeaders]?.contains("authorization") == true)
        }
    }

    @Test("the page is small, and loads nothing from elsewhere")
    func page() {
        let files = [DoorPage.document, DoorPage.style, DoorPage.script]
        #expect(files.reduce(0) { $0 + $1.text.utf8.count } < 200 << 10)
        for file in files {
            #expect(!file.text.contains("https://") && !file.text.contains("http://"), "\(file.path)")
            #expect(!file.text.contains("style=\"") && !file.text.contains("onclick"), "\(file.path)")
        }
        // Every name that the script looks up is in the document.
        let names = DoorPage.script.text.matches(of: /element\("([a-z0-9-]+)"\)/).map { String($0.1) }
        #expect(names.count > 40)
        for name in Set(names) { #expect(DoorPage.document.text.contains("id=\"\(name)\""), "\(name)") }
        #expect(DoorPage.policy.contains("default-src 'none'"))
    }

    @Test("the OpenAPI document names every address, and every schema that it refers to")
    func document() throws {
        let document = try json(OpenAPIDocument.json(version: "1").text)
        for entry in DoorRoute.table {
            #expect(document["paths"]?[entry.path]?[entry.method.lowercased()]?["responses"] != nil, "\(entry.path)")
        }
        // The mapping takes an enum's name and its number.
        let priority = document.at("components.schemas.GenerateRequest.properties.priority.anyOf.0.enum")
        guard case .array(let values)? = priority else { throw JSONFault(message: "priority has no values") }
        #expect(values.contains(.string("LOW")) && values.contains(.integer(0)))
        var references: Set<String> = []
        func visit(_ value: JSONValue) {
            switch value {
            case .object(let members):
                if case .string(let name)? = members["$ref"] { references.insert(name) }
                members.values.forEach(visit)
            case .array(let elements): elements.forEach(visit)
            default: break
            }
        }
        visit(document)
        #expect(references.count > 20)
        for reference in references {
            let name = String(reference.dropFirst("#/components/schemas/".count))
            #expect(document.at("components.schemas")?[name] != nil, "\(reference)")
        }
    }
}
