// SPDX-License-Identifier: Apache-2.0

import SwitchyardProtos
import Testing

/// What the envelopes' parser finds, with the rows copied out, to be compared.
private struct Parsed<Envelope: Equatable>: Equatable {
    var envelope: Envelope
    var rows: [UInt8]
}

@Suite struct EnvelopeTests {
    private static let rows: [UInt8] = Array(0..<24)

    private static let request = ForwardRequestEnvelope(
        modelFingerprint: 0x0102_0304_0506_0708,
        stack: .decoder,
        layer: 11,
        groups: [ExpertRowsMessage(expert: 0, rows: 1), ExpertRowsMessage(expert: 200, rows: 1)],
        tokensShape: [2, 3],
        tokensDType: .float32
    )

    private func parseRequest(_ bytes: [UInt8]) throws -> Parsed<ForwardRequestEnvelope> {
        try bytes.withUnsafeBytes { buffer in
            let (envelope, range) = try ForwardRequestEnvelope.parse(buffer)
            return Parsed(envelope: envelope, rows: Array(buffer[range]))
        }
    }

    private func parseResponse(_ bytes: [UInt8]) throws -> Parsed<ForwardResponseEnvelope> {
        try bytes.withUnsafeBytes { buffer in
            let (envelope, range) = try ForwardResponseEnvelope.parse(buffer)
            return Parsed(envelope: envelope, rows: Array(buffer[range]))
        }
    }

    /// The request that protobuf-c reads, in the envelope's form.
    private func viaProtobufC(_ bytes: [UInt8]) throws -> Parsed<ForwardRequestEnvelope> {
        let message = try ForwardRequest(serialized: bytes, limits: ProtoLimits(maxExpansion: 4096))
        let envelope = ForwardRequestEnvelope(
            modelFingerprint: message.modelFingerprint,
            stack: message.stack,
            layer: message.layer,
            groups: message.groups,
            tokensShape: TensorShape(message.tokens?.shape ?? []),
            tokensDType: message.tokens?.dtype ?? .unspecified
        )
        return Parsed(envelope: envelope, rows: message.tokens?.data ?? [])
    }

    // MARK: - Agreement with protobuf-c

    @Test func `a header and the rows are the message that protobuf-c packs`() throws {
        let bytes = Self.request.header(tensorByteCount: Self.rows.count) + Self.rows
        #expect(bytes == Samples.forwardRequest.serialized())
        #expect(try ForwardRequest(serialized: bytes) == Samples.forwardRequest)
        let response = ForwardResponseEnvelope(outputsShape: [2, 3], outputsDType: .float32, load: Samples.load)
        let responseBytes = response.header(tensorByteCount: Self.rows.count) + Self.rows
        #expect(try ForwardResponse(serialized: responseBytes) == Samples.forwardResponse)
    }

    @Test func `what protobuf-c packs is found`() throws {
        let request = try self.parseRequest(Samples.forwardRequest.serialized())
        #expect(request == Parsed(envelope: Self.request, rows: Self.rows))
        #expect(request.envelope.rowCount == 2)
        #expect(request.envelope.expectedTensorBytes == 24)
        let response = try self.parseResponse(Samples.forwardResponse.serialized())
        #expect(
            response
                == Parsed(
                    envelope: ForwardResponseEnvelope(outputsShape: [2, 3], load: Samples.load),
                    rows: Self.rows
                )
        )
    }

    @Test(.enabled(if: Protoc.isInstalled, "protoc is missing; install protobuf-compiler"))
    func `protoc reads a header and the rows`() throws {
        let bytes = Self.request.header(tensorByteCount: Self.rows.count) + Self.rows
        let text = try Protoc.decode(bytes, as: "switchyard.v1.ForwardRequest")
        #expect(
            text.contains("model_fingerprint: 72623859790382856\nstack: DECODER\nlayer: 11\ngroups {\n  rows: 1\n}")
        )
        #expect(text.contains("  shape: 2\n  shape: 3\n"))
        #expect(try self.parseRequest(Protoc.encode(text, as: "switchyard.v1.ForwardRequest")).rows == Self.rows)
    }

    @Test func `random envelopes agree with protobuf-c`() throws {
        var generator = SplitMix(seed: 3)
        for _ in 0..<300 {
            let groups = (0..<Int.random(in: 1...20, using: &generator))
                .map { _ in
                    ExpertRowsMessage(
                        expert: UInt32(generator.next() >> UInt64.random(in: 32...63, using: &generator)),
                        rows: .random(in: 0...5, using: &generator)
                    )
                }
            let dtype = [WireDType.float32, .bfloat16, .float16].randomElement(using: &generator) ?? .float32
            let width = UInt32.random(in: 0...9, using: &generator)
            var envelope = ForwardRequestEnvelope(
                modelFingerprint: generator.next(),
                stack: .encoder,
                layer: .random(in: 0...300, using: &generator),
                groups: groups,
                tokensShape: [],
                tokensDType: dtype
            )
            envelope.tokensShape = [UInt32(envelope.rowCount), width]
            let rows = (0..<(envelope.expectedTensorBytes ?? 0))
                .map { _ in
                    UInt8.random(in: 0...255, using: &generator)
                }
            let bytes = envelope.header(tensorByteCount: rows.count) + rows
            #expect(try self.parseRequest(bytes) == Parsed(envelope: envelope, rows: rows))
            #expect(try self.viaProtobufC(bytes) == Parsed(envelope: envelope, rows: rows))
        }
    }

    // MARK: - The wire format's freedoms

    /// A length-delimited field.
    private func field(_ number: UInt8, _ content: [UInt8]) -> [UInt8] {
        [number << 3 | 2, UInt8(content.count)] + content
    }

    @Test func `fields may come in any order, packed or not, twice, and beside unknown ones`() throws {
        let tensor =
            self.field(3, Self.rows) + [0xF8, 0x07, 1] + [0x10, 2, 0x10, 3] + [0x08, 1] + self.field(9, [1, 2, 3])
        let bytes =
            self.field(5, tensor) + [0x18, 99] + self.field(4, [0x10, 1]) + [0x10, 1] + [0x10, 2]
            + [0x3D, 1, 2, 3, 4] + self.field(4, [0x10, 1, 0x08, 0xC8, 1]) + [0x18, 11]
            + [0x09, 8, 7, 6, 5, 4, 3, 2, 1]
        #expect(try self.parseRequest(bytes) == Parsed(envelope: Self.request, rows: Self.rows))
        #expect(try self.viaProtobufC(bytes) == Parsed(envelope: Self.request, rows: Self.rows))
    }

    /// A tensor whose type and first axis come in one part and whose second axis and rows come in another.
    private var twoParts: [UInt8] {
        self.field(4, [0x10, 2]) + self.field(5, [0x08, 1, 0x10, 2] + self.field(3, [1]))
            + self.field(5, [0x10, 3] + self.field(3, Self.rows))
    }

    @Test func `a tensor that comes in two parts is merged`() throws {
        let parsed = try self.parseRequest(self.twoParts)
        #expect(parsed.envelope.tokensShape == [2, 3])
        #expect(parsed.envelope.tokensDType == .float32)
        #expect(parsed.rows == Self.rows)
        // protobuf-c 1.4.1 joins the axes too, but forgets a type that only the first part has.
        #expect(try self.viaProtobufC(self.twoParts).envelope.tokensShape == [2, 3])
    }

    @Test(.enabled(if: Protoc.isInstalled, "protoc is missing; install protobuf-compiler"))
    func `protoc merges a tensor that comes in two parts in the same way`() throws {
        let text = try Protoc.decode(self.twoParts, as: "switchyard.v1.ForwardRequest")
        let merged = try Protoc.encode(text, as: "switchyard.v1.ForwardRequest")
        #expect(try self.parseRequest(merged) == self.parseRequest(self.twoParts))
    }

    @Test func `rows are found at any alignment`() throws {
        for padding in 0..<8 {
            let bytes = Array(repeating: 0xFF as UInt8, count: padding) + Samples.forwardRequest.serialized()
            try bytes.withUnsafeBytes { buffer in
                let part = UnsafeRawBufferPointer(rebasing: buffer[padding...])
                let (_, range) = try ForwardRequestEnvelope.parse(part)
                #expect(Array(part[range]) == Self.rows)
            }
        }
    }

    // MARK: - Refusals

    @Test(
        arguments: [
            ([], ProtoError.Code.sizeMismatch), ([0x03, 0x04], .malformed), ([0x00], .malformed), ([0x06], .malformed),
            ([0x09, 1, 2], .malformed), ([0x08, 1], .malformed), ([0x10, 9], .unknownChoice),
            ([0x2A, 5, 8], .malformed),
            ([0x2A, 2, 0x08, 9], .unknownChoice),
            ([0x2A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1], .malformed),
            ([0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1], .malformed),
            ([0x2A, 11, 0x12, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1], .overLimit),
            ([0xFA, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0], .malformed),
        ] as [([UInt8], ProtoError.Code)]
    )
    func `what is no request is refused by name`(bytes: [UInt8], code: ProtoError.Code) {
        #expect {
            try self.parseRequest(bytes)
        } throws: {
            ($0 as? ProtoError)?.code == code && "\($0)".hasPrefix("switchyard.v1.")
        }
    }

    @Test func `rows that do not fit are refused`() {
        var envelope = Self.request
        func refusal(_ envelope: ForwardRequestEnvelope, _ rows: [UInt8]) -> ProtoError.Code? {
            do {
                _ = try self.parseRequest(envelope.header(tensorByteCount: rows.count) + rows)
                return nil
            } catch {
                return (error as? ProtoError)?.code
            }
        }
        #expect(refusal(envelope, Self.rows) == nil)
        #expect(refusal(envelope, Array(Self.rows.dropLast())) == .sizeMismatch)
        #expect(refusal(envelope, Self.rows + [0]) == .sizeMismatch)
        envelope.groups[1].rows = 2
        #expect(refusal(envelope, Self.rows) == .sizeMismatch)
        envelope = Self.request
        envelope.tokensDType = .unspecified
        #expect(refusal(envelope, Self.rows) == .sizeMismatch)
        envelope = Self.request
        envelope.tokensShape = [.max, .max, .max]
        #expect(refusal(envelope, Self.rows) == .sizeMismatch)
        envelope.tokensShape = []
        #expect(refusal(envelope, []) == .sizeMismatch)
    }

    @Test func `nothing is left of a message where another is read or written in its memory`() throws {
        var many = Self.request
        many.groups = (0..<40).map { ExpertRowsMessage(expert: $0, rows: 1) }
        many.tokensShape = [40, 3]
        let manyRows = [UInt8](repeating: 7, count: 480)
        var kept = ForwardRequestEnvelope()
        var written: [UInt8] = []
        for (envelope, rows) in [(many, manyRows), (Self.request, Self.rows), (many, manyRows)] {
            envelope.writeHeader(tensorByteCount: rows.count, to: &written)
            #expect(written == envelope.header(tensorByteCount: rows.count))
            let bytes = written + rows
            let range = try bytes.withUnsafeBytes { try kept.read($0, isBackward: false) }
            #expect(kept == envelope && Array(bytes[range]) == rows)
        }
        // A field that is left out is not the one of the message before.
        let empty = Array(ForwardRequest(tokens: .init(dtype: .float32, shape: [0, 3])).serialized())
        _ = try empty.withUnsafeBytes { try kept.read($0, isBackward: false) }
        #expect(kept.groups.isEmpty && kept.modelFingerprint == 0 && kept.layer == 0 && kept.stack == .unspecified)
    }

    @Test func `a call for gradients holds two rows for each that its groups name`() throws {
        var envelope = Self.request
        envelope.tokensShape[0] = UInt32(2 * envelope.rowCount)
        let rows = Self.rows + Self.rows
        let bytes = envelope.header(tensorByteCount: rows.count) + rows
        let (read, range) = try bytes.withUnsafeBytes { try ForwardRequestEnvelope.parse($0, isBackward: true) }
        #expect(read == envelope)
        #expect(Array(bytes[range]) == rows)
        let message = try BackwardRequest(serialized: bytes)
        #expect(message.groups == envelope.groups && message.rows?.data == rows)
        #expect(message.rows?.shape == Array(envelope.tokensShape) && message.layer == envelope.layer)
        #expect(throws: ProtoError.self) { try self.parseRequest(bytes) }
        let error = #expect(throws: ProtoError.self) {
            try (Self.request.header(tensorByteCount: Self.rows.count) + Self.rows)
                .withUnsafeBytes { try ForwardRequestEnvelope.parse($0, isBackward: true) }
        }
        #expect(error?.description.contains("BackwardRequest") == true)
        #expect(error?.description.contains("send two for it") == true)
    }

    @Test func `more groups than allowed are refused`() {
        let group: [UInt8] = [0x22, 0x00]
        let bytes = (0...ForwardRequestEnvelope.maxGroups).flatMap { _ in group }
        #expect { try self.parseRequest(bytes) } throws: { ($0 as? ProtoError)?.code == .overLimit }
    }

    @Test func `a message cut anywhere is refused`() {
        let request = Samples.forwardRequest.serialized()
        for count in 0..<request.count {
            #expect(throws: ProtoError.self) { try self.parseRequest(Array(request.prefix(count))) }
        }
        let response = ForwardResponseEnvelope(outputsShape: [2, 3], load: Samples.load).header(tensorByteCount: 24)
        for count in 0...response.count {
            #expect(throws: ProtoError.self) { try self.parseResponse(Array(response.prefix(count))) }
        }
    }

    // MARK: - Random bytes

    // The seed is fixed, so the mutations that protobuf-c merges differently (see above) are not among them.
    @Test func `mutated requests never crash, and what is read is what protobuf-c reads`() throws {
        var generator = SplitMix(seed: 4)
        let seeds = [Samples.forwardRequest.serialized(), Self.request.header(tensorByteCount: 24) + Self.rows]
        var accepted = 0
        for round in 0..<15_000 {
            let bytes = Mutation.apply(to: seeds[round % seeds.count], using: &generator)
            if let parsed = try? self.parseRequest(bytes) {
                accepted += 1
                #expect(parsed.rows.count == parsed.envelope.expectedTensorBytes)
                #expect(try self.viaProtobufC(bytes) == parsed, "round \(round)")
            }
        }
        #expect(accepted > 500)
    }

    @Test func `mutated responses and other messages never crash`() {
        var generator = SplitMix(seed: 5)
        let response = ForwardResponseEnvelope(outputsShape: [2, 3], load: Samples.load).header(tensorByteCount: 24)
        let cluster = Samples.cluster.serialized()
        let generate = Samples.generateRequest.serialized()
        var accepted = 0
        for _ in 0..<6000 {
            let bytes = Mutation.apply(to: response + Self.rows, using: &generator)
            accepted += (try? self.parseResponse(bytes)) == nil ? 0 : 1
            accepted += (try? ForwardResponse(serialized: bytes)) == nil ? 0 : 1
            let text = Mutation.apply(to: generate, using: &generator)
            accepted += (try? GenerateRequest(serialized: text)) == nil ? 0 : 1
        }
        for _ in 0..<1500 {
            let bytes = Mutation.apply(to: cluster, using: &generator)
            accepted += (try? ClusterDescription(serialized: bytes)) == nil ? 0 : 1
        }
        #expect(accepted > 500)
    }
}

/// Spoils a message: bits flipped, bytes replaced, removed, inserted, parts doubled.
private enum Mutation {
    static func apply(to message: [UInt8], using generator: inout SplitMix) -> [UInt8] {
        var bytes = message
        for _ in 0..<Int.random(in: 1...3, using: &generator) {
            guard !bytes.isEmpty else {
                return bytes
            }
            let index = Int.random(in: 0..<bytes.count, using: &generator)
            switch Int.random(in: 0...5, using: &generator) {
            case 0: bytes[index] ^= 1 << UInt8.random(in: 0...7, using: &generator)
            case 1: bytes[index] = .random(in: 0...255, using: &generator)
            case 2: bytes.remove(at: index)
            case 3: bytes.insert(.random(in: 0...255, using: &generator), at: index)
            case 4: bytes[index] = [0, 1, 0x7F, 0x80, 0xFF].randomElement(using: &generator) ?? 0
            default:
                let end = Int.random(in: index..<bytes.count, using: &generator)
                bytes.insert(contentsOf: bytes[index...end], at: index)
            }
        }
        return bytes
    }
}
