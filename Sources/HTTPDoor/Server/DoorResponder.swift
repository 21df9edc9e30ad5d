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
    let bodies: BodyWatch
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
        self.bodies = BodyWatch(patience: configuration.patience.body)
        self.crossOrigin = CrossOrigin(origins: configuration.origins)
        self.logger = logger
    }

    /// What is known of a request once its head has come.
    struct Exchange: Sendable {
        var route: DoorRoute
        var call: DoorCall
        var connection: DoorConnection
        /// The stream of this request alone; nil for HTTP/1.1.
        var stream: DoorStream?
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
        guard let (connection, stream) = self.connections.origin(of: channel) else { return }
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
            stream: stream,
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
        let number = self.bodies.began(channel)
        defer { self.bodies.ended(number) }
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
                reply = try await exchange.attended(call)
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
        if ends, let origin = self.connections.origin(of: channel), origin.stream == nil { head[.connection] = "close" }
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

    func reply(_ fault: DoorFault, _ exchange: Exchange) -> DoorReply {
        let dialect = exchange.route.dialect
        var reply = DoorReply(dialect.body(of: fault), status: dialect.status(of: fault))
        DoorHeaders.add(fault, to: &reply.fields)
        return reply
    }

    @concurrent
    func write(_ reply: DoorReply, _ exchange: Exchange, _ writer: consuming HummingbirdCore.ResponseWriter)
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

    /// Logs how a traced request ended; others only for debugging.
    func log(_ exchange: Exchange, fault: DoorFault?) {
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
    /// Runs a call as long as the client is there; then it is cancelled.
    ///
    /// - Parameter body: The call.
    /// - Returns: What the call returns.
    /// - Throws: What the call throws.
    func attended<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) async throws -> Result {
        // Over HTTP/1.1 the connection's task, which is this one, is cancelled when the client leaves.
        guard let stream = self.stream else { return try await body() }
        return try await stream.attended(body)
    }
}
