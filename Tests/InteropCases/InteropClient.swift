// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore
internal import RPCTransport

/// The calls of the interop cases.
struct InteropClient {
    let channel: RPCChannel
    /// Which responses came compressed.
    let log: CompressionLog
    /// The case's name, for errors.
    let name: String

    /// No call here may take longer, a lost one least of all.
    private static let patience: Duration = .seconds(60)
    private static let streamedSizes: [Int32] = [31_415, 9, 2_653, 58_979]
    private static let sentSizes = [27_182, 8, 1_828, 45_904]

    var options: CallOptions { CallOptions(deadline: .now + Self.patience, waitForReady: true) }

    func emptyUnary() async throws {
        let reply = try await self.channel.unary(
            InteropMethods.emptyCall,
            Payload(plain: Empty().serialized),
            options: self.options
        )
        try self.expect(reply.message.readableBytes == 0, "an empty message came with bytes")
    }

    func largeUnary() async throws {
        let reply = try await self.unary(SimpleRequest(responseSize: 314_159, zeros: 271_828), self.options)
        try self.checkZeros(SimpleResponse(reading: reply.message).payload, 314_159)
    }

    func clientStreaming() async throws {
        let call = self.channel.clientStreaming(InteropMethods.streamingInputCall, options: self.options)
        for size in Self.sentSizes {
            try await call.requests.write(Payload(plain: StreamingInputCallRequest(zeros: size).serialized))
        }
        call.requests.finish()
        let response = try StreamingInputCallResponse(reading: try await call.response().message)
        try self.expect(
            response.aggregatedPayloadSize == 74_922,
            "\(response.aggregatedPayloadSize) bytes were counted"
        )
    }

    func serverStreaming() async throws {
        let request = Payload(plain: StreamingOutputCallRequest(sizes: Self.streamedSizes).serialized)
        let responses = self.channel.serverStreaming(
            InteropMethods.streamingOutputCall,
            request,
            options: self.options
        )
        var count = 0
        for try await message in responses {
            try self.expect(count < Self.streamedSizes.count, "more than four responses")
            try self.checkZeros(StreamingOutputCallResponse(reading: message).payload, Self.streamedSizes[count])
            count += 1
        }
        try self.expect(count == Self.streamedSizes.count, "\(count) responses")
    }

    func pingPong() async throws {
        let call = self.channel.bidirectional(InteropMethods.fullDuplexCall, options: self.options)
        var responses = call.responses.makeAsyncIterator()
        for (size, zeros) in zip(Self.streamedSizes, Self.sentSizes) {
            let request = StreamingOutputCallRequest(sizes: [size], zeros: zeros)
            try await call.requests.write(Payload(plain: request.serialized))
            guard let message = try await responses.next() else { throw self.failure("a response is missing") }
            try self.checkZeros(StreamingOutputCallResponse(reading: message).payload, size)
        }
        call.requests.finish()
        let more = try await responses.next()
        try self.expect(more == nil, "a fifth response came")
    }

    func emptyStream() async throws {
        let call = self.channel.bidirectional(InteropMethods.fullDuplexCall, options: self.options)
        call.requests.finish()
        for try await _ in call.responses { throw self.failure("a response came without a request") }
    }

    func cancelAfterBegin() async throws {
        let call = self.channel.clientStreaming(InteropMethods.streamingInputCall, options: self.options)
        call.handle.cancel()
        try await self.expectStatus(.cancelled) { _ = try await call.response() }
    }

    func cancelAfterFirstResponse() async throws {
        let call = self.channel.bidirectional(InteropMethods.fullDuplexCall, options: self.options)
        var responses = call.responses.makeAsyncIterator()
        let request = StreamingOutputCallRequest(sizes: [31_415], zeros: 27_182)
        try await call.requests.write(Payload(plain: request.serialized))
        let first = try await responses.next()
        try self.expect(first != nil, "no response came")
        call.responses.handle.cancel()
        try await self.expectStatus(.cancelled) { while try await responses.next() != nil {} }
    }

    func timeoutOnSleepingServer() async throws {
        // A call before it, so that the short deadline passes in the server and not on the way to a connection.
        try await self.emptyUnary()
        let options = CallOptions(deadline: .now + .milliseconds(1), waitForReady: true)
        let call = self.channel.bidirectional(InteropMethods.fullDuplexCall, options: options)
        var request = StreamingOutputCallRequest(sizes: [31_415], zeros: 27_182)
        request.responseParameters[0].intervalMicroseconds = 5_000_000
        // The write fails when the deadline has passed before it.
        try? await call.requests.write(Payload(plain: request.serialized))
        try await self.expectStatus(.deadlineExceeded) { for try await _ in call.responses {} }
    }

    func customMetadata() async throws {
        let initial = "test_initial_metadata_value"
        let trailing: [UInt8] = [0xAB, 0xAB, 0xAB]
        var options = self.options
        try options.metadata.add(initial, forKey: InteropMethods.initialEcho)
        try options.metadata.add(binary: trailing, forKey: InteropMethods.trailingEcho)

        let reply = try await self.unary(SimpleRequest(responseSize: 314_159, zeros: 271_828), options)
        try self.expect(reply.initialMetadata[text: InteropMethods.initialEcho] == [initial], "initial metadata, unary")
        try self.expect(reply.trailingMetadata[binary: InteropMethods.trailingEcho] == [trailing], "trailers, unary")

        let call = self.channel.bidirectional(InteropMethods.fullDuplexCall, options: options)
        let request = StreamingOutputCallRequest(sizes: [314_159], zeros: 271_828)
        try await call.requests.write(Payload(plain: request.serialized))
        call.requests.finish()
        for try await _ in call.responses {}
        let streamInitial = call.responses.initialMetadata[text: InteropMethods.initialEcho]
        let streamTrailing = call.responses.trailingMetadata[binary: InteropMethods.trailingEcho]
        try self.expect(streamInitial == [initial], "initial metadata, stream: \(streamInitial)")
        try self.expect(streamTrailing == [trailing], "trailers, stream: \(streamTrailing)")
    }

    func status(_ wanted: EchoStatus, streams: Bool) async throws {
        var request = SimpleRequest()
        request.responseStatus = wanted
        let sent = request
        try await self.expectStatus(.unknown, message: wanted.message) { _ = try await self.unary(sent, self.options) }
        guard streams else { return }
        let call = self.channel.bidirectional(InteropMethods.fullDuplexCall, options: self.options)
        var streamed = StreamingOutputCallRequest()
        streamed.responseStatus = wanted
        try await call.requests.write(Payload(plain: streamed.serialized))
        call.requests.finish()
        try await self.expectStatus(.unknown, message: wanted.message) { for try await _ in call.responses {} }
    }

    func unimplemented(_ method: Method) async throws {
        try await self.expectStatus(.unimplemented) {
            _ = try await self.channel.unary(method, Payload(plain: Empty().serialized), options: self.options)
        }
    }

    // MARK: - Checks

    func unary(
        _ request: SimpleRequest,
        _ options: CallOptions,
        isCompressed: Bool = false
    ) async throws -> UnaryReply {
        let payload = isCompressed ? Payload(request.serialized) : Payload(plain: request.serialized)
        return try await self.channel.unary(InteropMethods.unaryCall, payload, options: options)
    }

    func failure(_ what: String) -> InteropFailure { InteropFailure(description: "\(self.name): \(what)") }

    func expect(_ condition: Bool, _ what: @autoclosure () -> String) throws {
        if !condition { throw self.failure(what()) }
    }

    func checkZeros(_ filling: Filling?, _ size: Int32) throws {
        let body = filling?.body ?? ByteBuffer()
        try self.expect(body.readableBytes == size, "\(body.readableBytes) bytes came instead of \(size)")
        try self.expect(body == ByteBuffer(repeating: 0, count: Int(size)), "the response is not all zeros")
    }

    func expectStatus(
        _ code: Status.Code,
        message: String? = nil,
        _ body: () async throws -> Void
    ) async throws {
        do {
            try await body()
        } catch let error as RPCError {
            try self.expect(error.code == code, "the status is \(error), not \(code)")
            if let message { try self.expect(error.message == message, "the status message is \"\(error.message)\"") }
            return
        }
        throw self.failure("the call ended with OK instead of \(code)")
    }
}
