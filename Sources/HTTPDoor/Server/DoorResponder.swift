// SPDX-License-Identifier: Apache-2.0

internal import HTTPTypes
internal import HummingbirdCore
internal import JSONValues
internal import Logging
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchyardProtos
internal import Telemetry

/// Answers requests: who asks, whether there is room, what is asked, and the answer in the dialect of the address.
struct DoorResponder: Sendable {
    let backend: any DoorBackend
    let configuration: DoorConfiguration
    let connections: DoorConnections
    let counts: DoorCounts
    let budget: BodyBudget
    let crossOrigin: CrossOrigin
    let logger: Logger
    /// When the door was made, in seconds since 1970: the age of the model that it serves.
    let created = DoorClock.now

    init(
        backend: any DoorBackend,
        configuration: DoorConfiguration,
        connections: DoorConnections,
        counts: DoorCounts,
        logger: Logger
    ) {
        self.backend = backend
        self.configuration = configuration
        self.connections = connections
        self.counts = counts
        self.budget = BodyBudget(limit: configuration.bodyBudgetBytes)
        self.crossOrigin = CrossOrigin(origins: configuration.origins)
        self.logger = logger
    }

    /// What is known of a request once its head has come.
    struct Exchange: Sendable {
        var route: DoorRoute
        var call: DoorCall
        var connection: DoorConnection
        /// The channel of this request alone, or of the connection.
        var channel: any Channel
        /// The fields of every answer to it.
        var fields: HTTPFields
        var isHead: Bool
        /// Where the JSON of a body ends that has tensors after it, as the head says.
        var inferenceLength: String?
        var start = ContinuousClock.now
    }

    /// Answers a request.
    ///
    /// - Parameters:
    ///   - request: The request, whose body may still be on its way.
    ///   - writer: Takes the answer.
    ///   - channel: The request's channel.
    /// - Throws: What writing to the channel throws.
    @concurrent
    func respond(to request: Request, _ writer: consuming HummingbirdCore.ResponseWriter, on channel: any Channel)
        async throws
    {
        guard let connection = self.connections.connection(of: channel) else { return }
        connection.began()
        self.counts.began()
        defer {
            self.counts.ended()
            connection.ended()
        }
        if let preflight = self.crossOrigin.preflight(request.head) {
            self.counts.answered(nil, .own, status: preflight.status.code)
            try await writer.writeResponse(preflight)
            return
        }
        let route: DoorRoute
        do {
            route = try DoorRoute.find(request.method.rawValue, request.head.path ?? "")
        } catch {
            var fields = self.crossOrigin.fields(for: request.headers)
            if let allowed = error.allowed { fields[.allow] = allowed }
            try await self.refuse(error.fault, nil, error.dialect, fields, request, writer, channel)
            return
        }
        var exchange = Exchange(
            route: route,
            call: DoorCall(caller: connection.callerName),
            connection: connection,
            channel: channel,
            fields: self.crossOrigin.fields(for: request.headers),
            isHead: request.method == .head,
            inferenceLength: request.headers[DoorHeaders.inferenceLength]
        )
        do throws(DoorFault) {
            try self.admit(request, &exchange)
        } catch {
            try await self.refuse(error, route, route.dialect, exchange.fields, request, writer, channel)
            return
        }
        let hasBody = route.action.hasBody
        if hasBody, request.headers[.expect]?.lowercased() == "100-continue" {
            try await writer.writeInformationalHead(HTTPResponse(status: .continue))
        }
        let body: [UInt8]
        do {
            body = hasBody ? try await self.body(of: request, channel) : []
        } catch {
            try await self.refuse(DoorFault(error), route, route.dialect, exchange.fields, request, writer, channel)
            return
        }
        defer { self.budget.give(body.count) }
        try await self.answer(exchange, body, writer)
    }

    /// Finds out who asks and whether there is room, before the body is read.
    private func admit(_ request: Request, _ exchange: inout Exchange) throws(DoorFault) {
        let action = exchange.route.action
        let headers = request.headers
        exchange.call.trace = TraceContext.begin(parents: headers[values: DoorHeaders.traceParent]) {
            headers[values: DoorHeaders.traceState]
        }
        if let trace = exchange.call.trace { exchange.fields[DoorHeaders.traceResponse] = trace.parent.description }
        if let tokens = self.configuration.tokens, !action.isOpen(coversHealth: tokens.coversHealth) {
            let holder = tokens.holder(
                of: headers[values: .authorization],
                peer: exchange.connection.host,
                what: "\(request.method) \(action)"
            )
            switch holder {
            case .success(let name): exchange.call.caller = "token \(name)"
            case .failure(let error): throw DoorFault(error)
            }
        }
        exchange.call.deadline = try DoorHeaders.deadline(headers)
        if action.isQueued {
            if let refusal = self.backend.refusal ?? self.backend.refusal(of: exchange.call.caller) {
                throw DoorFault(refusal)
            }
        }
        if action.hasBody { try DoorHeaders.checkType(headers, action) }
    }

    /// Reads a body, which the budget then holds; it is the caller's to give back.
    private func body(of request: Request, _ channel: any Channel) async throws -> [UInt8] {
        let limit = self.configuration.maxBodyBytes
        func tooLarge(_ count: String) -> DoorFault {
            DoorFault(413, .resourceExhausted, "the body has \(count) bytes; the limit is \(limit)")
        }
        if let text = request.headers[.contentLength], let count = Int(text), count > limit {
            throw tooLarge("\(count)")
        }
        let timer = channel.eventLoop.scheduleTask(in: TimeAmount(self.configuration.patience.body)) {
            channel.close(promise: nil)
        }
        defer { timer.cancel() }
        var bytes: [UInt8] = []
        do {
            for try await part in request.body {
                guard bytes.count + part.readableBytes <= limit else { throw tooLarge("more than \(limit)") }
                guard self.budget.take(part.readableBytes) else {
                    throw DoorFault(
                        503,
                        .resourceExhausted,
                        "the gateway holds as many bytes of requests as it may; try again soon",
                        retryMilliseconds: 1_000
                    )
                }
                bytes += part.readableBytesView
            }
        } catch {
            self.budget.give(bytes.count)
            if error is DoorFault || error is CancellationError { throw error }
            // The parser's own words: a length or a chunk that is none.
            throw DoorFault(400, .invalidArgument, "the body breaks the rules of HTTP: \(ErrorWords.shown("\(error)"))")
        }
        return bytes
    }

    // MARK: - Answers

    @concurrent
    private func answer(_ exchange: Exchange, _ body: [UInt8], _ writer: consuming HummingbirdCore.ResponseWriter)
        async throws
    {
        let work: DoorWork
        do throws(DoorFault) {
            work = try self.work(exchange, body)
        } catch {
            self.log(exchange, fault: error)
            try await self.write(self.reply(error, exchange), exchange, writer)
            return
        }
        switch work {
        case .ready(let reply): try await self.write(reply, exchange, writer)
        case .call(let call):
            let reply: DoorReply
            do {
                reply = try await self.attended(exchange) { try await call() }
                self.log(exchange, fault: nil)
            } catch {
                let fault = DoorFault(error).renamed(exchange.route.dialect.names)
                self.log(exchange, fault: fault)
                reply = self.reply(fault, exchange)
            }
            try await self.write(reply, exchange, writer)
        case .stream(let backend, let requests, let form):
            try await self.stream(backend, requests, form, exchange, writer)
        }
    }

    /// Refuses a request whose body has not been read, and ends its connection, since the body may be endless.
    @concurrent
    private func refuse(
        _ fault: DoorFault,
        _ route: DoorRoute?,
        _ dialect: Dialect,
        _ fields: HTTPFields,
        _ request: Request,
        _ writer: consuming HummingbirdCore.ResponseWriter,
        _ channel: any Channel
    ) async throws {
        self.logger.debug("a request was refused", metadata: ["reason": "\(ErrorWords.shown(fault.message))"])
        var head = DoorHeaders.common("application/json")
        for field in fields { head[field.name] = field.value }
        DoorHeaders.add(fault, to: &head)
        // A request that cannot have a body costs nothing more.
        let ends = request.method != .get && request.method != .head
        // HTTP/2 has no such field (RFC 9113, section 8.2.2).
        if ends, self.connections.connection(of: channel)?.channel === channel { head[.connection] = "close" }
        let body = dialect.body(of: fault).text
        head[.contentLength] = "\(body.utf8.count)"
        let response = HTTPResponse(status: .init(code: dialect.status(of: fault)), headerFields: head)
        let isHead = request.method == .head
        self.counts.answered(route, dialect, status: response.status.code)
        try await writer.write(response: response, body: isHead ? .init() : .init(byteBuffer: ByteBuffer(string: body)))
        guard ends else { return }
        // The client gets a moment to read why, and what it still sends is discarded.
        channel.close(mode: .output, promise: nil)
        channel.eventLoop.scheduleTask(in: .seconds(1)) { channel.close(promise: nil) }
    }

    private func reply(_ fault: DoorFault, _ exchange: Exchange) -> DoorReply {
        let dialect = exchange.route.dialect
        var reply = DoorReply(dialect.body(of: fault), status: dialect.status(of: fault))
        DoorHeaders.add(fault, to: &reply.fields)
        return reply
    }

    @concurrent
    private func write(_ reply: DoorReply, _ exchange: Exchange, _ writer: consuming HummingbirdCore.ResponseWriter)
        async throws
    {
        var fields = DoorHeaders.common(reply.type)
        for field in exchange.fields { fields[field.name] = field.value }
        for field in reply.fields { fields[field.name] = field.value }
        fields[.contentLength] = "\(reply.body.utf8.count + reply.tail.count)"
        let head = HTTPResponse(status: .init(code: reply.status), headerFields: fields)
        self.counts.answered(exchange.route, exchange.route.dialect, status: reply.status)
        if exchange.isHead {
            try await writer.writeResponse(head)
        } else {
            var buffer = ByteBuffer(string: reply.body)
            buffer.writeBytes(reply.tail)
            try await writer.write(response: head, body: .init(byteBuffer: buffer))
        }
    }

    /// Runs a call as long as its client is there.
    private func attended<Result: Sendable>(
        _ exchange: Exchange,
        _ body: @escaping @Sendable () async throws -> Result
    ) async throws -> Result {
        try await withThrowingTaskGroup(of: Result?.self) { group in
            group.addTask { try await body() }
            group.addTask {
                await exchange.waitUntilLeft()
                return nil
            }
            defer { group.cancelAll() }
            guard let result = try await group.next() ?? nil else { throw CancellationError() }
            return result
        }
    }

    /// Sends a generation as it comes.
    ///
    /// Until its first event is known, a fault is an answer like any other.
    @concurrent
    private func stream(
        _ backend: any DoorBackend,
        _ requests: [GenerateRequest],
        _ form: any EventForm,
        _ exchange: Exchange,
        _ writer: consuming HummingbirdCore.ResponseWriter
    ) async throws {
        var slot: HummingbirdCore.ResponseWriter? = consume writer
        let (events, source) = AsyncThrowingStream.makeStream(of: GenerationEvent.self)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await backend.generateAll(requests, exchange.call, into: source) }
            group.addTask {
                await exchange.waitUntilLeft()
                source.finish(throwing: CancellationError())
            }
            defer { group.cancelAll() }
            guard let writer = slot.take() else { return }
            try await self.send(events, form, exchange, writer)
        }
    }

    @concurrent
    private func send(
        _ events: AsyncThrowingStream<GenerationEvent, any Error>,
        _ form: any EventForm,
        _ exchange: Exchange,
        _ writer: consuming HummingbirdCore.ResponseWriter
    ) async throws {
        var form = form
        var iterator = events.makeAsyncIterator()
        var next: GenerationEvent?
        do {
            next = try await iterator.next()
        } catch {
            let fault = DoorFault(error).renamed(exchange.route.dialect.names)
            self.log(exchange, fault: fault)
            try await self.write(self.reply(fault, exchange), exchange, writer)
            return
        }
        var fields = DoorHeaders.common("text/event-stream")
        for field in exchange.fields { fields[field.name] = field.value }
        self.counts.answered(exchange.route, exchange.route.dialect, status: 200)
        var output = try await writer.writeHead(HTTPResponse(status: .ok, headerFields: fields))
        var fault: DoorFault?
        while let event = next {
            let text = form.events(event).reduce(into: "") { $0 += "data: \($1)\n\n" }
            if !text.isEmpty { try await output.write(ByteBuffer(string: text)) }
            do {
                next = try await iterator.next()
            } catch {
                fault = DoorFault(error).renamed(exchange.route.dialect.names)
                next = nil
            }
        }
        self.log(exchange, fault: fault)
        let ending = fault.map { [form.event(of: $0)] } ?? form.ending()
        let text = ending.reduce(into: "") { $0 += "data: \($1)\n\n" }
        if !text.isEmpty { try await output.write(ByteBuffer(string: text)) }
        try await output.finish(nil)
    }

    /// Logs how a traced request ended; others only for debugging.
    private func log(_ exchange: Exchange, fault: DoorFault?) {
        let level: Logger.Level = exchange.call.trace?.isSampled == true ? .info : .debug
        guard self.logger.logLevel <= level else { return }
        var metadata: Logger.Metadata = exchange.call.trace?.logMetadata ?? [:]
        metadata["action"] = "\(exchange.route.action)"
        metadata["caller"] = "\(exchange.call.caller)"
        metadata["time"] = "\(exchange.start.duration(to: .now))"
        if let fault { metadata["error"] = "\(fault.status): \(ErrorWords.shown(fault.message))" }
        self.logger.log(level: level, "a request over HTTP ended", metadata: metadata)
    }
}

extension DoorResponder.Exchange {
    /// Waits until the client is not there any more, or the task is cancelled.
    func waitUntilLeft() async {
        // Over HTTP/1.1 the connection outlives its requests, and it must not gather a callback for each.
        guard self.channel !== self.connection.channel else { return await self.connection.waitUntilClosed() }
        let (closed, source) = AsyncStream.makeStream(of: Never.self)
        self.channel.closeFuture.whenComplete { _ in source.finish() }
        for await _ in closed {}
    }
}

extension DoorBackend {
    /// Runs the generations of one request over HTTP, all at once; the first fault ends all.
    ///
    /// - Parameters:
    ///   - requests: The generations.
    ///   - call: What comes with the request.
    ///   - source: Takes what happens, and the end.
    func generateAll(
        _ requests: [GenerateRequest],
        _ call: DoorCall,
        into source: AsyncThrowingStream<GenerationEvent, any Error>.Continuation
    ) async {
        do {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (index, request) in requests.enumerated() {
                    group.addTask {
                        let response = try await self.generate(request, call) { source.yield(.token(index, $0)) }
                        source.yield(.response(index, response))
                    }
                }
                try await group.waitForAll()
            }
            source.finish()
        } catch {
            source.finish(throwing: error)
        }
    }

    /// Runs generations at once and waits for all.
    ///
    /// - Parameters:
    ///   - requests: The generations.
    ///   - call: What comes with the request.
    /// - Returns: The answers, in the order of the requests.
    /// - Throws: `RPCError` of the first that failed.
    func generateAll(_ requests: [GenerateRequest], _ call: DoorCall) async throws -> [GenerateResponse] {
        if requests.count == 1 { return [try await self.generate(requests[0], call, onToken: nil)] }
        return try await withThrowingTaskGroup(of: (Int, GenerateResponse).self) { group in
            for (index, request) in requests.enumerated() {
                group.addTask { (index, try await self.generate(request, call, onToken: nil)) }
            }
            var responses: [Int: GenerateResponse] = [:]
            for try await (index, response) in group { responses[index] = response }
            return requests.indices.compactMap { responses[$0] }
        }
    }
}
