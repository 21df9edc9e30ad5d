// SPDX-License-Identifier: Apache-2.0

import SwitchyardProtos

/// Every message of the protocol: what decodes encodes to something that decodes to the same.
enum ProtosRun {
    static func run(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        var source = ByteSource(bytes)
        let kind = source.byte()
        let message = source.rest()
        trace.note(kind % 20)
        switch kind % 20 {
        case 0: try Self.roundTrip(GenerateRequest.self, message, &trace)
        case 1: try Self.roundTrip(GenerateResponse.self, message, &trace)
        case 2: try Self.roundTrip(GenerateEvent.self, message, &trace)
        case 3: try Self.roundTrip(ScoreRequest.self, message, &trace)
        case 4: try Self.roundTrip(ScoreResponse.self, message, &trace)
        case 5: try Self.roundTrip(EncodeRequest.self, message, &trace)
        case 6: try Self.roundTrip(EncodeResponse.self, message, &trace)
        case 7: try Self.roundTrip(Tensor.self, message, &trace)
        case 8: try Self.roundTrip(DescribeClusterRequest.self, message, &trace)
        case 9: try Self.roundTrip(ClusterDescription.self, message, &trace)
        case 10: try Self.roundTrip(DescribeModelRequest.self, message, &trace)
        case 11: try Self.roundTrip(ModelDescription.self, message, &trace)
        case 12: try Self.roundTrip(DescribeHostRequest.self, message, &trace)
        case 13: try Self.roundTrip(HostDescription.self, message, &trace)
        case 14: try Self.roundTrip(HealthCheckRequest.self, message, &trace)
        case 15: try Self.roundTrip(HealthCheckResponse.self, message, &trace)
        case 16, 17:
            try Self.roundTrip(ForwardRequest.self, message, &trace)
            try Self.forwardRequest(message, &trace)
        default:
            try Self.roundTrip(ForwardResponse.self, message, &trace)
            try Self.forwardResponse(message, &trace)
        }
    }

    private static func roundTrip<Message: ProtoMessage>(
        _ type: Message.Type,
        _ bytes: [UInt8],
        _ trace: inout Trace
    ) throws(FuzzFinding) {
        let tight = ProtoLimits(maxMessageBytes: 1_000, maxExpansion: 4, freeBytes: 256)
        switch (Self.decode(type, bytes), Self.decode(type, bytes, tight)) {
        case (.failure(let error), let limited):
            trace.note(error.code.hashNumber)
            try expect(!error.message.isEmpty && !error.detail.isEmpty, "an error says what is wrong")
            if case .success = limited {
                throw FuzzFinding("tight limits accept no more than wide ones", "\(type): \(error)")
            }
        case (.success(let message), let limited):
            trace.note(1)
            if case .failure(let error) = limited {
                try expect(error.code == .overLimit, "limits fail for their own reason", "\(type): \(error)")
                trace.note(2)
            }
            // Written bytes are compared, not values: a NaN differs from itself.
            let written = message.serialized()
            trace.note(size: written.count)
            switch Self.decode(type, written, .fuzz) {
            case .failure(let error):
                throw FuzzFinding("what was written can be read", "\(type): \(error)")
            case .success(let again):
                try expect(again.serialized() == written, "a message is read as it was written", "\(message)")
            }
        }
    }

    /// The envelope and the message are two readers of one format.
    private static func forwardRequest(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let parsed = bytes.withUnsafeBytes { buffer in
            Result { () throws(ProtoError) in try ForwardRequestEnvelope.parse(buffer) }
        }
        guard case .success(let (envelope, range)) = parsed else { return }
        trace.note(10)
        try expect(range.upperBound <= bytes.count, "the rows are inside the message")
        try expect(envelope.expectedTensorBytes == range.count, "the number of bytes matches type and shape")
        let written = envelope.header(tensorByteCount: range.count) + bytes[range]
        switch Self.decode(ForwardRequest.self, written, .fuzz) {
        case .failure(let error): throw FuzzFinding("the message reads what the envelope writes", "\(error)")
        case .success(let message):
            let isSame =
                message.modelFingerprint == envelope.modelFingerprint && message.stack == envelope.stack
                && message.layer == envelope.layer && message.groups == envelope.groups
                && message.tokens?.shape == Array(envelope.tokensShape) && message.tokens?.dtype == envelope.tokensDType
                && message.tokens?.data == Array(bytes[range])
            try expect(isSame, "envelope and message agree", "\(envelope)")
        }
        // Both read the same bytes from the wire, where the memory limits let the message through.
        switch Self.decode(ForwardRequest.self, bytes, .fuzz) {
        case .failure(let error): try expect(error.code == .overLimit, "both readers accept the same", "\(error)")
        case .success(let message):
            let isSame = message.groups == envelope.groups && message.tokens?.data == Array(bytes[range])
            try expect(isSame && message.layer == envelope.layer, "both readers read the same", "\(envelope)")
        }
    }

    private static func forwardResponse(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let parsed = bytes.withUnsafeBytes { buffer in
            Result { () throws(ProtoError) in try ForwardResponseEnvelope.parse(buffer) }
        }
        guard case .success(let (envelope, range)) = parsed else { return }
        trace.note(11)
        try expect(range.upperBound <= bytes.count, "the rows are inside the message")
        let written = envelope.header(tensorByteCount: range.count) + bytes[range]
        switch Self.decode(ForwardResponse.self, written, .fuzz) {
        case .failure(let error): throw FuzzFinding("the message reads what the envelope writes", "\(error)")
        case .success(let message):
            let isSame =
                message.load == envelope.load && message.outputs?.shape == Array(envelope.outputsShape)
                && message.outputs?.dtype == envelope.outputsDType && message.outputs?.data == Array(bytes[range])
            try expect(isSame, "envelope and message agree", "\(envelope)")
        }
        switch Self.decode(ForwardResponse.self, bytes, .fuzz) {
        case .failure(let error): try expect(error.code == .overLimit, "both readers accept the same", "\(error)")
        case .success(let message):
            // The loads can differ: of a load that comes twice protobuf-c keeps the second, where protobuf would merge.
            let isSame = message.outputs?.data == Array(bytes[range])
            try expect(isSame, "both readers read the same", "\(envelope)")
        }
    }

    private static func decode<Message: ProtoMessage>(
        _ type: Message.Type,
        _ bytes: [UInt8],
        _ limits: ProtoLimits = .defaults
    ) -> Result<Message, ProtoError> {
        Result { () throws(ProtoError) in try Message(serialized: bytes, limits: limits) }
    }
}

extension ProtoLimits {
    /// Wide enough for whatever this process wrote itself.
    fileprivate static let fuzz = ProtoLimits(maxExpansion: 1 << 10, freeBytes: 64 << 20)
}

extension ProtoError.Code {
    /// A number for the trace.
    fileprivate var hashNumber: Int {
        switch self {
        case .malformed: 20
        case .overLimit: 21
        case .invalidUTF8: 22
        case .unknownChoice: 23
        case .sizeMismatch: 24
        }
    }
}
