// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore
internal import RPCTransport

/// The calls of the cases about compressed messages.
extension InteropClient {
    func clientCompressedUnary() async throws {
        var request = SimpleRequest(responseSize: 314_159, zeros: 271_828)
        request.expectCompressed = BoolValue(true)
        let expecting = request
        // A server that looks turns down what it expects compressed and what is not.
        try await self.expectStatus(.invalidArgument) { _ = try await self.unary(expecting, self.options) }
        let compressed = try await self.unary(expecting, self.options, isCompressed: true)
        try self.checkZeros(SimpleResponse(reading: compressed.message).payload, 314_159)
        request.expectCompressed = BoolValue(false)
        let plain = try await self.unary(request, self.options)
        try self.checkZeros(SimpleResponse(reading: plain.message).payload, 314_159)
    }

    func serverCompressedUnary() async throws {
        for isCompressed in [true, false] {
            var request = SimpleRequest(responseSize: 314_159, zeros: 271_828)
            request.responseCompressed = BoolValue(isCompressed)
            let reply = try await self.unary(request, self.options)
            try self.checkZeros(SimpleResponse(reading: reply.message).payload, 314_159)
            try self.expectFlag(isCompressed)
        }
    }

    func clientCompressedStreaming() async throws {
        var first = StreamingInputCallRequest(zeros: 27_182)
        first.expectCompressed = BoolValue(true)
        let probe = Payload(plain: first.serialized)
        try await self.expectStatus(.invalidArgument) {
            let call = self.channel.clientStreaming(InteropMethods.streamingInputCall, options: self.options)
            try await call.requests.write(probe)
            call.requests.finish()
            _ = try await call.response()
        }
        let call = self.channel.clientStreaming(InteropMethods.streamingInputCall, options: self.options)
        try await call.requests.write(Payload(first.serialized))
        var second = StreamingInputCallRequest(zeros: 45_904)
        second.expectCompressed = BoolValue(false)
        try await call.requests.write(Payload(plain: second.serialized))
        call.requests.finish()
        let response = try StreamingInputCallResponse(reading: try await call.response().message)
        try self.expect(
            response.aggregatedPayloadSize == 73_086,
            "\(response.aggregatedPayloadSize) bytes were counted"
        )
    }

    func serverCompressedStreaming() async throws {
        var request = StreamingOutputCallRequest(sizes: [31_415, 92_653])
        request.responseParameters[0].compressed = BoolValue(true)
        request.responseParameters[1].compressed = BoolValue(false)
        let responses = self.channel.serverStreaming(
            InteropMethods.streamingOutputCall,
            Payload(plain: request.serialized),
            options: self.options
        )
        var bodies: [Filling?] = []
        for try await message in responses {
            bodies.append(try StreamingOutputCallResponse(reading: message).payload)
        }
        try self.expect(bodies.count == 2, "\(bodies.count) responses")
        try self.checkZeros(bodies[0], 31_415)
        try self.checkZeros(bodies[1], 92_653)
        try self.expectFlag(true)
        try self.expectFlag(false)
    }

    /// Checks how the next response came.
    private func expectFlag(_ isCompressed: Bool) throws {
        let came = self.log.next()
        try self.expect(came == isCompressed, "the response's flag is \(came.map { "\($0)" } ?? "missing")")
    }
}

extension Payload {
    /// A message that goes out as it is, although the channel compresses: what a case says nothing about is not compressed.
    init(plain buffer: ByteBuffer) {
        self.init(buffer)
        self.mayBeCompressed = false
    }
}
