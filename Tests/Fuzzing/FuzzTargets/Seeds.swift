// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore
import SwitchyardProtos

/// Inputs to begin with: exchanges that two of our own codecs recorded, frames that are legal or hostile by hand, and
/// messages of the protocol.
public enum Seeds {
    /// The seeds of a target, with names that say what they are.
    ///
    /// - Parameter target: The target that the inputs are for.
    /// - Returns: At least one input.
    public static func inputs(for target: FuzzTarget) -> [(name: String, bytes: [UInt8])] {
        switch target {
        case .http2Server: Self.framesForServer
        case .http2Client: Self.framesForClient
        case .http2Split:
            Self.framesForServer
                + Self.framesForClient.map { seed in
                    let options = (seed.bytes.first ?? 0) | CodecInput.Option.client
                    return (seed.name + "-client", [options] + seed.bytes.dropFirst())
                }
        case .grpcServer:
            [
                ("unary", [0, 0, 0, 200, 5, 0, 2, 200, 4, 6, 9, 0, 0, 0]),
                ("stream", [0, 0, 0, 200, 5, 3, 2, 200, 2, 200, 6, 6, 8, 9, 5, 3, 0x61, 0x20, 0x25, 0]),
                ("abort", [0, 0, 0, 10, 5, 1, 10, 11, 200]),
            ]
        case .grpcClient:
            [
                ("unary", [0, 7, 8, 0, 0, 0, 200, 3, 200, 0, 250, 1, 12, 16, 10]),
                ("stream", [3, 7, 7, 8, 0, 0, 0, 200, 3, 200, 3, 10, 0, 230, 2, 12, 14, 13, 10, 5]),
                ("reset", [1, 7, 0, 0, 0, 200, 6, 8]),
            ]
        case .deframer:
            [
                ("messages", [3, 1] + MessagePieces.prefix(3) + [1, 2, 3] + MessagePieces.prefix(0)),
                ("compressed", [2, 9, 1] + MessagePieces.prefix(2).dropFirst() + [1, 2]),
                ("too-long", [1, 0, 0, 0xff, 0xff, 0xff, 0xff, 1]),
            ]
        case .heads:
            [
                ("request", [0, 0, 4, 9, 17, 10, 14, 15, 3, 7, 28]),
                ("response", [1, 200, 0, 3, 10, 14, 15, 28, 11, 16]),
                ("trailers", [2, 5, 6, 0x20, 0x25, 0x0a, 0xc3, 0xa4, 0x20, 2, 14, 2, 1, 2, 15, 3]),
                ("metadata", [3, 2, 14, 3, 1, 2, 3, 15, 0, 2, 16, 27, 15, 28]),
            ]
        case .encodings:
            [
                ("percent", [0] + Array(" 50 % of größer%41%zz% ".utf8)),
                ("base64", [1] + Array("AAECAwQ=".utf8)),
                ("timeout", [2] + Array("99999999H".utf8)),
                ("duration", [3, 20, 0x7f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
            ]
        case .protos: Self.messages
        case .safetensors: FileSeeds.safetensors
        case .torch: FileSeeds.torch
        case .pickle: FileSeeds.pickles
        case .configuration: FileSeeds.configurations
        case .weightIndex: FileSeeds.indexes
        case .adapter: FileSeeds.adapters
        case .manifest, .partManifest: FileSeeds.manifests
        case .placement: FileSeeds.placements
        case .hubListing: FileSeeds.listings
        case .pieces: FileSeeds.pieces
        case .tokenizerJSON: FileSeeds.tokenizers
        case .tokenizerSettings: FileSeeds.tokenizerSettings
        case .settings: FileSeeds.settings
        case .certificates: FileSeeds.certificates
        case .receipt: ReceiptRun.seeds
        }
    }

    // MARK: - Frames

    private static let settings = MessagePieces.frame(type: 4)
    private static let settingsAnswer = MessagePieces.frame(type: 4, flags: 1)

    private static func request(_ streamID: UInt32, flags: UInt8 = 4) -> [UInt8] {
        MessagePieces.frame(type: 1, flags: flags, streamID: streamID, payload: MessagePieces.requestBlock)
    }

    private static func message(_ streamID: UInt32, _ length: Int, flags: UInt8 = 1) -> [UInt8] {
        let payload = MessagePieces.prefix(length) + [UInt8](repeating: 0x61, count: length)
        return MessagePieces.frame(type: 0, flags: flags, streamID: streamID, payload: payload)
    }

    private static let framesForServer: [(name: String, bytes: [UInt8])] = {
        let window = MessagePieces.frame(type: 8, payload: [0, 1, 0, 0])
        let block = MessagePieces.requestBlock
        let half = block.count / 2
        let padded = [3] + block + [0, 0, 0]
        let continued =
            MessagePieces.frame(type: 1, flags: 1, streamID: 1, payload: Array(block[..<half]))
            + MessagePieces.frame(type: 9, flags: 4, streamID: 1, payload: Array(block[half...]))
        let prefaced = CodecInput.preface + Self.settings
        let frames: [(String, [UInt8])] = [
            ("unary", Self.settingsAnswer + Self.request(1) + Self.message(1, 9)),
            ("two-calls", Self.request(1) + Self.request(3) + Self.message(3, 1) + Self.message(1, 400)),
            ("many-calls", (0..<6).flatMap { Self.request(UInt32(2 * $0 + 1), flags: 5) }),
            ("continuation", continued),
            ("padded", MessagePieces.frame(type: 1, flags: 0x0d, streamID: 1, payload: padded)),
            ("window", window + Self.request(1) + MessagePieces.frame(type: 8, streamID: 1, payload: [0, 0, 9, 9])),
            ("reset", Self.request(1) + MessagePieces.frame(type: 3, streamID: 1, payload: [0, 0, 0, 8])),
            ("trailers", Self.request(1) + Self.message(1, 2, flags: 0) + Self.request(1, flags: 5)),
            ("skipped", Self.request(5, flags: 5) + Self.request(3, flags: 5)),
            ("reused", Self.request(1, flags: 5) + Self.message(1, 2)),
            ("ping-flood", (0..<60).flatMap { _ in MessagePieces.frame(type: 6, payload: Array(1...8)) }),
            ("settings-flood", (0..<12).flatMap { _ in MessagePieces.frame(type: 4, payload: [0, 4, 0, 0, 0, 1]) }),
            ("empty-data", Self.request(1) + (0..<60).flatMap { _ in MessagePieces.frame(type: 0, streamID: 1) }),
            (
                "priorities",
                (0..<60).flatMap { _ in MessagePieces.frame(type: 2, streamID: 1, payload: [0, 0, 0, 3, 1]) }
            ),
            ("unknown", MessagePieces.frame(type: 0x40, flags: 0xff, streamID: 9, payload: [1, 2, 3])),
            (
                "overflow",
                Self.request(1) + MessagePieces.frame(type: 8, streamID: 1, payload: [0x7f, 0xff, 0xff, 0xff])
            ),
            ("go-away", MessagePieces.frame(type: 7, payload: [0, 0, 0, 0, 0, 0, 0, 11] + Array("calm".utf8))),
            ("too-large", [0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]),
        ]
        let options = CodecInput.Option.prefaced
        var seeds = frames.map { (name: $0.0, bytes: [options, 1] + $0.1) }
        seeds += frames.prefix(9).map { (name: $0.0 + "-small", bytes: [options | CodecInput.Option.small, 2] + $0.1) }
        seeds.append((name: "preface", bytes: [CodecInput.Option.small, 3] + prefaced + Self.request(1, flags: 5)))
        seeds.append((name: "http1", bytes: [0, 4] + Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8)))
        let recorded = RecordedExchange()
        seeds.append((name: "recorded", bytes: [CodecInput.Option.slowConsumer, 5] + recorded.toServer))
        return seeds
    }()

    private static let framesForClient: [(name: String, bytes: [UInt8])] = {
        func head(_ streamID: UInt32, flags: UInt8 = 4) -> [UInt8] {
            MessagePieces.frame(type: 1, flags: flags, streamID: streamID, payload: MessagePieces.responseBlock)
        }
        func trailers(_ streamID: UInt32) -> [UInt8] {
            MessagePieces.frame(type: 1, flags: 5, streamID: streamID, payload: MessagePieces.trailerBlock)
        }
        let interim = MessagePieces.frame(type: 1, flags: 4, streamID: 1, payload: [0x08, 3, 0x31, 0x30, 0x30])
        let frames: [(String, [UInt8])] = [
            ("answer", Self.settingsAnswer + head(1) + Self.message(1, 9, flags: 0) + trailers(1)),
            ("trailers-only", head(1, flags: 5) + head(3, flags: 5)),
            ("interim", interim + interim + head(1) + trailers(1)),
            ("no-trailers", head(1) + Self.message(1, 3)),
            ("large", head(1) + Self.message(1, 4_096, flags: 0) + Self.message(1, 4_096, flags: 0)),
            ("refused", MessagePieces.frame(type: 3, streamID: 1, payload: [0, 0, 0, 7])),
            ("go-away", MessagePieces.frame(type: 7, payload: [0, 0, 0, 1, 0, 0, 0, 0]) + head(1, flags: 5)),
            ("push", MessagePieces.frame(type: 5, flags: 4, streamID: 1, payload: [0, 0, 0, 2, 0x82])),
            (
                "limits",
                MessagePieces.frame(type: 4, payload: [0, 3, 0, 0, 0, 1, 0, 4, 0, 0, 0, 0, 0, 5, 0, 0, 0x40, 0])
            ),
            ("idle-stream", head(9) + Self.message(9, 3)),
        ]
        let options = CodecInput.Option.prefaced
        var seeds = frames.map { (name: $0.0, bytes: [options, 1] + $0.1) }
        seeds += frames.prefix(4).map { (name: $0.0 + "-small", bytes: [options | CodecInput.Option.small, 2] + $0.1) }
        seeds.append((name: "recorded", bytes: [CodecInput.Option.slowReader, 5] + RecordedExchange().toClient))
        return seeds
    }()

    // MARK: - Messages

    private static let messages: [(name: String, bytes: [UInt8])] = {
        var generate = GenerateRequest(input: .text("A horse! a horse! my <extra_id_0> for a horse!"))
        generate.dropPolicy = DropPolicy(strict: true, maxDroppedFraction: 0.5)
        let tensor = Tensor(dtype: .float32, shape: [2, 2], data: [UInt8](repeating: 1, count: 16))
        let forward = ForwardRequest(
            modelFingerprint: 0x0123_4567_89ab_cdef,
            stack: .decoder,
            layer: 3,
            groups: [ExpertRowsMessage(expert: 1, rows: 2)],
            tokens: tensor
        )
        var load = HostLoad()
        load.activeCalls = 2
        load.draining = true
        var model = ModelDescription()
        model.name = "switch-mini"
        model.fingerprint = 77
        model.weightDType = .bfloat16
        let list: [(String, UInt8, [UInt8])] = [
            ("generate-request", 0, generate.serialized()),
            ("generate-response", 1, GenerateResponse().serialized()),
            ("tensor", 7, tensor.serialized()),
            ("model-description", 11, model.serialized()),
            ("health-request", 14, HealthCheckRequest(service: "switchyard.v1.Gateway").serialized()),
            ("forward-request", 16, forward.serialized()),
            ("forward-response", 18, ForwardResponse(outputs: tensor, load: load).serialized()),
            ("group", 16, [0x0b, 0x08, 0x01, 0x0c]),
            ("amplifier", 16, (0..<200).flatMap { _ in [0x22, 0x00] as [UInt8] }),
        ]
        var seeds = list.map { (name: $0.0, bytes: [$0.1] + $0.2) }
        // Every other kind of message begins with nothing.
        seeds += (0..<20).map { (name: "empty-\($0)", bytes: [UInt8($0)]) }
        return seeds
    }()
}

/// Two calls between a client and a server of ours: what each sent, byte for byte.
struct RecordedExchange {
    private(set) var toServer: [UInt8] = []
    private(set) var toClient: [UInt8] = []

    init() {
        do {
            try self.record()
        } catch {
            // A codec that cannot hold two calls fails every other seed as well.
        }
    }

    private mutating func record() throws {
        let client = try HTTP2Codec(role: .client, now: CodecInput.epoch)
        let server = try HTTP2Codec(role: .server, now: CodecInput.epoch)
        let request = [
            HTTP2HeaderField(":method", "POST"), HTTP2HeaderField(":scheme", "http"),
            HTTP2HeaderField(":path", "/switchyard.v1.Gateway/Generate"), HTTP2HeaderField(":authority", "localhost"),
            HTTP2HeaderField("grpc-timeout", "5S", isNeverIndexed: true), HTTP2HeaderField("te", "trailers"),
            HTTP2HeaderField("content-type", "application/grpc"), HTTP2HeaderField("x-data-bin", "AAEC"),
        ]
        for length in [12, 3_000] {
            let streamID = try client.submitRequest(request, endStream: false)
            let message = ByteBuffer(bytes: MessagePieces.prefix(length) + [UInt8](repeating: 0x61, count: length))
            try client.submitData(streamID: streamID, [message], endStream: true)
            try self.exchange(client, server)
            let head = [HTTP2HeaderField(":status", "200"), HTTP2HeaderField("content-type", "application/grpc")]
            try server.submitResponse(streamID: streamID, head, endStream: false)
            try server.submitData(streamID: streamID, [message])
            try server.submitTrailers(
                streamID: streamID,
                [HTTP2HeaderField("grpc-status", "0"), HTTP2HeaderField("grpc-message", "%0A")]
            )
            try self.exchange(client, server)
        }
        server.announceShutdown()
        client.ping(opaque: 1)
        try self.exchange(client, server)
    }

    private mutating func exchange(_ client: HTTP2Codec, _ server: HTTP2Codec) throws {
        while true {
            let up = client.takeOutput().flatMap { Array($0.readableBytesView) }
            try server.receive(ByteBuffer(bytes: up), now: CodecInput.epoch)
            let down = server.takeOutput().flatMap { Array($0.readableBytesView) }
            try client.receive(ByteBuffer(bytes: down), now: CodecInput.epoch)
            self.toServer += up
            self.toClient += down
            if up.isEmpty && down.isEmpty { return }
        }
    }
}
