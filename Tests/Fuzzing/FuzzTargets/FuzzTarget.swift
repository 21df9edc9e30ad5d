// SPDX-License-Identifier: Apache-2.0

/// A function that takes any bytes, does with them what the transport would do, and checks what must always hold.
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
        }
        return trace.summary
    }

    /// Whether inputs are two bytes of choices and then HTTP/2 frames.
    public var takesFrames: Bool {
        switch self {
        case .http2Server, .http2Client, .http2Split: true
        default: false
        }
    }
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

    /// Notes a size by its magnitude.
    mutating func note(size: Int) {
        self.note(0x1_0000 + (Int.bitWidth - size.leadingZeroBitCount))
    }
}
