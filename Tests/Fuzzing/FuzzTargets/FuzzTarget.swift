// SPDX-License-Identifier: Apache-2.0

/// A function that takes any bytes, does with them what the transport or a reader of files would do, and checks what must always hold.
///
/// A target ends in one of three ways: it returns, it throws a ``FuzzFinding`` because a property did not hold, or it
/// stops the process, which is a finding as well. It keeps no state from one run to the next and depends on nothing but
/// its bytes.
public enum FuzzTarget: String, CaseIterable, Sendable {
    /// HTTP/2 frames of a client into a server: codec, call machines and deframer answer as the real server does.
    case http2Server = "http2-server"
    /// HTTP/2 frames of a server into a client with open calls.
    case http2Client = "http2-client"
    /// HTTP/2 frames, whole and in pieces: the events must be the same.
    case http2Split = "http2-split"
    /// Steps of the server's call machine in any order.
    case grpcServer = "grpc-server"
    /// Steps of the client's call machine in any order.
    case grpcClient = "grpc-client"
    /// Length-prefixed messages, whole and in pieces.
    case deframer
    /// Header blocks of requests and responses, trailers and metadata.
    case heads
    /// Percent encoding, base64 and timeouts.
    case encodings
    /// Every protobuf message of the protocol.
    case protos
    /// A safetensors file, or its header.
    case safetensors
    /// A `pytorch_model.bin` of either format.
    case torch
    /// The pickle in a `pytorch_model.bin`.
    case pickle
    /// `config.json` and `generation_config.json`.
    case configuration
    /// The index of several weight files.
    case weightIndex = "weight-index"
    /// `adapter_config.json` of a LoRA adapter.
    case adapter
    /// `manifest.json` of a part, as its reader takes it.
    case manifest
    /// `manifest.json` of a part, as fetching takes it.
    case partManifest = "part-manifest"
    /// `placement.json`.
    case placement
    /// A hub's list of files.
    case hubListing = "hub-listing"
    /// A `spiece.model`.
    case pieces
    /// A `tokenizer.json`.
    case tokenizerJSON = "tokenizer-json"
    /// A tokenizer's settings, special and added tokens.
    case tokenizerSettings = "tokenizer-settings"
    /// A file of settings, and one of tokens.
    case settings
    /// A certificate and its key.
    case certificates
    /// A receipt of an answer.
    case receipt

    /// The longest input that a target looks at, in bytes; the rest is ignored.
    public static let maxInputBytes = 1 << 16

    /// Runs the target once.
    ///
    /// - Parameter bytes: Any bytes.
    /// - Returns: A short summary of what happened, as a number. Inputs with the same summary went similar ways; one
    ///   with a new summary is worth keeping for further mutation.
    /// - Throws: ``FuzzFinding`` when a property does not hold.
    public func run(_ bytes: [UInt8]) throws(FuzzFinding) -> UInt64 {
        let bytes = bytes.count > Self.maxInputBytes ? Array(bytes[..<Self.maxInputBytes]) : bytes
        var trace = Trace()
        try self.run(bytes, &trace)
        return trace.summary
    }

    /// Runs the target once, and says whether it took the input for a good file, so that seeds can be known to be good.
    ///
    /// - Parameter bytes: Any bytes.
    /// - Returns: Whether a reader of files accepted them; always false for targets that read none.
    /// - Throws: ``FuzzFinding`` when a property does not hold.
    public func accepts(_ bytes: [UInt8]) throws(FuzzFinding) -> Bool {
        var trace = Trace()
        try self.run(bytes, &trace)
        return trace.isAccepted
    }

    private func run(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        switch self {
        case .http2Server: try HTTP2ServerRun.run(bytes, &trace)
        case .http2Client: try HTTP2ClientRun.run(bytes, &trace)
        case .http2Split: try HTTP2SplitRun.run(bytes, &trace)
        case .grpcServer: try GRPCServerRun.run(bytes, &trace)
        case .grpcClient: try GRPCClientRun.run(bytes, &trace)
        case .deframer: try DeframerRun.run(bytes, &trace)
        case .heads: try HeadsRun.run(bytes, &trace)
        case .encodings: try EncodingsRun.run(bytes, &trace)
        case .protos: try ProtosRun.run(bytes, &trace)
        case .safetensors: try WeightFilesRun.safetensors(bytes, &trace)
        case .torch: try WeightFilesRun.torch(bytes, &trace)
        case .pickle: try WeightFilesRun.pickle(bytes, &trace)
        case .configuration: try ConfigurationRun.configuration(bytes, &trace)
        case .weightIndex: try ConfigurationRun.index(bytes, &trace)
        case .adapter: try ConfigurationRun.adapter(bytes, &trace)
        case .manifest: try ConfigurationRun.manifest(bytes, &trace)
        case .partManifest: try OperatorFilesRun.partManifest(bytes, &trace)
        case .placement: try ConfigurationRun.placement(bytes, &trace)
        case .hubListing: try OperatorFilesRun.hubListing(bytes, &trace)
        case .pieces: try TokenizerRun.pieces(bytes, &trace)
        case .tokenizerJSON: try TokenizerRun.json(bytes, &trace)
        case .tokenizerSettings: try TokenizerRun.settings(bytes, &trace)
        case .settings: try OperatorFilesRun.settings(bytes, &trace)
        case .certificates: try OperatorFilesRun.certificates(bytes, &trace)
        case .receipt: try ReceiptRun.receipt(bytes, &trace)
        }
    }

    /// What the bytes of inputs are.
    var shape: InputShape {
        switch self {
        case .http2Server, .http2Client, .http2Split: .frames
        case .grpcServer, .grpcClient, .deframer, .heads, .encodings, .protos, .torch, .certificates: .bytes
        case .pieces: .fields
        case .pickle: .pickle
        case .safetensors, .configuration, .weightIndex, .adapter, .manifest, .partManifest, .placement, .hubListing,
            .tokenizerJSON, .tokenizerSettings, .settings, .receipt:
            .json
        }
    }

    /// Whether the target reads files that people hand to a program, where the others read what a peer sends.
    public var readsFiles: Bool {
        switch self {
        case .http2Server, .http2Client, .http2Split, .grpcServer, .grpcClient, .deframer, .heads, .encodings, .protos:
            false
        default: true
        }
    }

    /// Whether inputs are two bytes of choices and then HTTP/2 frames.
    public var takesFrames: Bool { self.shape == .frames }
}

/// A property that did not hold.
public struct FuzzFinding: Error, Sendable, Hashable, CustomStringConvertible {
    /// What must hold.
    public let property: String
    /// What was seen instead.
    public let detail: String

    /// Creates a finding.
    ///
    /// - Parameters:
    ///   - property: What must hold.
    ///   - detail: What was seen instead.
    public init(_ property: String, _ detail: String = "") {
        self.property = property
        self.detail = detail
    }

    /// The property and what was seen.
    public var description: String { self.detail.isEmpty ? self.property : "\(self.property): \(self.detail)" }
}

/// Throws unless a condition holds.
func expect(
    _ condition: Bool,
    _ property: @autoclosure () -> String,
    _ detail: @autoclosure () -> String = ""
) throws(FuzzFinding) {
    if !condition { throw FuzzFinding(property(), detail()) }
}

/// Collects what happened during a run into one number.
struct Trace {
    private(set) var summary: UInt64 = 0xcbf2_9ce4_8422_2325
    /// Whether a file was accepted.
    private(set) var isAccepted = false
    private var previous: UInt64 = .max
    private var repeats = 0

    /// Notes that something happened; of many equal things in a row only the first few count.
    mutating func note(_ value: some BinaryInteger) {
        let value = UInt64(truncatingIfNeeded: value)
        if value == self.previous {
            self.repeats += 1
            if self.repeats > 2 { return }
        } else {
            self.previous = value
            self.repeats = 0
        }
        self.summary = (self.summary ^ value) &* 0x0000_0100_0000_01b3
    }

    /// Notes that a file was accepted.
    mutating func accept() {
        self.isAccepted = true
        self.note(1)
    }

    /// Notes a size by its magnitude.
    mutating func note(size: Int) {
        self.note(0x1_0000 + (Int.bitWidth - size.leadingZeroBitCount))
    }
}
