// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import Testing

@Suite("Repeated header blocks")
struct RecurrenceTests {
    private static let timed = HTTP2CodecConfiguration(variableFieldName: "grpc-timeout")

    /// Sends a request without a body and returns how the server saw it.
    private func request(_ pair: CodecPair, _ fields: [HTTP2HeaderField]) throws -> HTTP2HeaderBlock {
        let stream = try pair.client.submitRequest(fields, endStream: true)
        try pair.exchange()
        try pair.server.submitResponse(streamID: stream, responseFields, endStream: true)
        try pair.exchange()
        return try #require(pair.serverEvents.blocks(of: stream).first)
    }

    @Test("have the same number while their fields are the same, and another one otherwise")
    func recurrence() throws {
        let pair = try CodecPair()
        let first = try self.request(pair, requestFields)
        let again = try self.request(pair, requestFields)
        let id = try #require(first.recurrence)
        #expect(again.recurrence == id)
        #expect(again.fields == requestFields)

        // Another path, another value, one field more, one field less, another order.
        var path = requestFields
        path[2].value = "/test.Service/Other"
        let longer = requestFields + [HTTP2HeaderField("x-more", "1")]
        let swapped = requestFields.dropLast(2) + requestFields.suffix(2).reversed()
        var seen = Set([id])
        for fields in [path, longer, Array(requestFields.dropLast()), Array(swapped)] {
            let block = try self.request(pair, fields)
            #expect(block.fields == fields)
            #expect(seen.insert(try #require(block.recurrence)).inserted)
            let repeated = try self.request(pair, fields)
            #expect(repeated.fields == fields)
            #expect(repeated.recurrence == block.recurrence)
        }
        #expect(try self.request(pair, requestFields).recurrence == id)
    }

    @Test("keep the field that differs from block to block apart")
    func variable() throws {
        let pair = try CodecPair(server: Self.timed)
        var id: Int?
        for timeout in ["1S", "250m", "99999999n"] {
            let field = HTTP2HeaderField("grpc-timeout", timeout, isNeverIndexed: true)
            let block = try self.request(pair, requestFields + [field])
            #expect(block.fields == requestFields)
            #expect(block.variable?.value == timeout)
            #expect(id == nil || block.recurrence == id)
            id = block.recurrence
        }
        let without = try self.request(pair, requestFields)
        #expect(without.variable == nil)
        #expect(without.recurrence == id)
        // A second one, or one that is far too long, is a field like any other.
        let twice = [HTTP2HeaderField("grpc-timeout", "1S"), HTTP2HeaderField("grpc-timeout", "2S")]
        let double = try self.request(pair, requestFields + twice)
        #expect(double.variable?.value == "1S")
        #expect(double.fields == requestFields + [twice[1]])
        let long = HTTP2HeaderField("grpc-timeout", String(repeating: "9", count: 65))
        let block = try self.request(pair, requestFields + [long])
        #expect(block.variable == nil)
        #expect(block.fields == requestFields + [long])
    }

    @Test("are forgotten oldest first, and are never mistaken for others")
    func many() throws {
        let pair = try CodecPair()
        var generator = SystemRandomNumberGenerator()
        var idOfPath: [String: Set<Int>] = [:]
        var pathOfID: [Int: String] = [:]
        for _ in 0..<600 {
            var fields = requestFields
            fields[2].value = "/test.Service/Method\(Int.random(in: 0..<12, using: &generator))"
            if Bool.random(using: &generator) { fields.append(HTTP2HeaderField("x-y", "\(Int.random(in: 0..<3))")) }
            let block = try self.request(pair, fields)
            #expect(block.fields == fields)
            let key = fields.map(\.description).joined(separator: ";")
            if let id = block.recurrence {
                #expect(pathOfID[id] == nil || pathOfID[id] == key)
                pathOfID[id] = key
                idOfPath[key, default: []].insert(id)
            }
        }
        #expect(idOfPath.count > 12)
    }

    @Test("count against the header list limit like any other")
    func limit() throws {
        let size = requestFields.reduce(0) { $0 + $1.listSizeBytes }
        let pair = try CodecPair(
            client: .defaults,
            server: HTTP2CodecConfiguration(maxHeaderListBytes: size + 60, variableFieldName: "grpc-timeout")
        )
        let field = HTTP2HeaderField("grpc-timeout", "1S")
        _ = try self.request(pair, requestFields + [field])
        let long = HTTP2HeaderField("grpc-timeout", String(repeating: "1", count: 60))
        let stream = try pair.client.submitRequest(requestFields + [long], endStream: true)
        try pair.exchange()
        let isRefused = pair.serverEvents.contains {
            if case .headersTooLarge(stream, .request, let bytes, let limit) = $0 { bytes > limit } else { false }
        }
        #expect(isRefused)
        #expect(try self.request(pair, requestFields).fields == requestFields)
    }
}

@Suite("Stored header blocks")
struct StoredBlockTests {
    @Test("arrive as stored, with one more field where one is given")
    func exchange() throws {
        let pair = try CodecPair()
        let request = try #require(try pair.client.store(requestFields))
        let response = try #require(try pair.server.store(responseFields))
        let trailers = try #require(try pair.server.store(trailerFields))
        for timeout in [nil, "5S", "17m"] as [String?] {
            let variable = timeout.map { HTTP2HeaderField("grpc-timeout", $0, isNeverIndexed: true) }
            let stream = try pair.client.submitRequest(request, variable: variable, endStream: false)
            try pair.client.submitData(streamID: stream, [pattern(100)], endStream: true)
            try pair.exchange()
            let expected = requestFields + (timeout.map { [HTTP2HeaderField("grpc-timeout", $0)] } ?? [])
            #expect(pair.serverEvents.blocks(of: stream).first?.fields == expected)
            try pair.server.submitResponse(streamID: stream, response, endStream: false)
            try pair.server.submitData(streamID: stream, [pattern(50)])
            try pair.server.submitTrailers(streamID: stream, trailers)
            try pair.exchange()
            #expect(pair.clientEvents.blocks(of: stream).map(\.fields) == [responseFields, trailerFields])
            #expect(pair.clientEvents.closes(of: stream).map(\.code) == [.noError])
        }
        let alone = try pair.client.submitRequest(request, variable: nil, endStream: true)
        try pair.exchange()
        try pair.server.submitResponse(streamID: alone, response, endStream: true)
        try pair.exchange()
        #expect(pair.clientEvents.blocks(of: alone).map(\.endStream) == [true])
    }

    @Test("are checked when they are stored, and are bounded in number")
    func limits() throws {
        let pair = try CodecPair()
        for bad in [HTTP2HeaderField("Upper", "x"), HTTP2HeaderField("a", "line\nbreak"), HTTP2HeaderField("", "x")] {
            #expect(throws: HTTP2CodecError.self) { try pair.client.store(requestFields + [bad]) }
        }
        let block = try #require(try pair.client.store(requestFields))
        #expect(throws: HTTP2CodecError.self) {
            try pair.client.submitRequest(block, variable: HTTP2HeaderField("grpc-timeout", "1\n"), endStream: true)
        }
        for _ in 1..<256 { #expect(try pair.client.store(requestFields) != nil) }
        #expect(try pair.client.store(requestFields) == nil)
        #expect(pair.client.openStreamCount == 0)
    }
}
