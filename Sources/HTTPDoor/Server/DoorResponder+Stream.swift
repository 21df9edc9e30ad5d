// SPDX-License-Identifier: Apache-2.0

internal import HTTPTypes
internal import HummingbirdCore
internal import NIOCore
internal import SwitchyardProtos

extension DoorResponder {
    /// Sends a generation as it comes.
    ///
    /// Until its first event is known, a fault is an answer like any other.
    @concurrent
    func stream(
        _ backend: any DoorBackend,
        _ requests: [GenerateRequest],
        _ form: any EventForm,
        _ exchange: Exchange,
        _ writer: consuming HummingbirdCore.ResponseWriter
    ) async throws {
        var slot: HummingbirdCore.ResponseWriter? = consume writer
        let queue = GenerationQueue()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                // However it ends, the queue tells.
                try? await exchange.attended { await backend.generateAll(requests, exchange.call, into: queue) }
            }
            defer { group.cancelAll() }
            guard let writer = slot.take() else { return }
            try await self.send(queue, form, exchange, writer)
        }
    }

    @concurrent
    private func send(
        _ queue: GenerationQueue,
        _ form: any EventForm,
        _ exchange: Exchange,
        _ writer: consuming HummingbirdCore.ResponseWriter
    ) async throws {
        var form = form
        var batch: (events: [GenerationEvent], isLast: Bool)
        do {
            batch = try await queue.next()
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
        var isOver = false
        while !isOver {
            isOver = batch.isLast
            var texts = batch.events.flatMap { form.events($0) }
            if isOver {
                self.log(exchange, fault: nil)
                texts += form.ending()
            }
            if !texts.isEmpty { try await output.write(Self.events(texts)) }
            guard !isOver else { break }
            do {
                batch = try await queue.next()
            } catch {
                let fault = DoorFault(error).renamed(exchange.route.dialect.names)
                self.log(exchange, fault: fault)
                try await output.write(Self.events([form.event(of: fault)]))
                isOver = true
            }
        }
        try await output.finish(nil)
    }

    private static func events(_ texts: [String]) -> ByteBuffer {
        ByteBuffer(string: texts.reduce(into: "") { $0 += "data: \($1)\n\n" })
    }
}

extension DoorBackend {
    /// Runs the generations of one request over HTTP, all at once; the first fault ends all.
    ///
    /// - Parameters:
    ///   - requests: The generations.
    ///   - call: What comes with the request.
    ///   - queue: Takes what happens, and the end.
    func generateAll(_ requests: [GenerateRequest], _ call: DoorCall, into queue: GenerationQueue) async {
        do {
            if requests.count == 1 {
                try await self.generate(requests[0], 0, call, into: queue)
            } else {
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for (index, request) in requests.enumerated() {
                        group.addTask { try await self.generate(request, index, call, into: queue) }
                    }
                    try await group.waitForAll()
                }
            }
            queue.finish()
        } catch {
            queue.finish(error)
        }
    }

    private func generate(
        _ request: GenerateRequest,
        _ index: Int,
        _ call: DoorCall,
        into queue: GenerationQueue
    ) async throws {
        let response = try await self.generate(request, call) { queue.add(.token(index, $0)) }
        queue.add(.response(index, response))
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
