// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore

/// The nine bytes that open a frame, as the fuzz targets read them, independently of the codec.
struct WireFrame {
    let length: Int
    let type: UInt8
    let flags: UInt8
    let streamID: UInt32

    static let headerBytes = 9

    init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count >= Self.headerBytes else { return nil }
        let head = Array(bytes.prefix(Self.headerBytes))
        self.length = Int(head[0]) << 16 | Int(head[1]) << 8 | Int(head[2])
        self.type = head[3]
        self.flags = head[4]
        self.streamID =
            UInt32(head[5] & 0x7f) << 24 | UInt32(head[6]) << 16 | UInt32(head[7]) << 8 | UInt32(head[8])
    }
}

/// Checks that what a codec sends is a legal sequence of frames.
struct OutputInspector {
    private enum Kind {
        static let data: UInt8 = 0
        static let headers: UInt8 = 1
        static let reset: UInt8 = 3
        static let settings: UInt8 = 4
        static let pushPromise: UInt8 = 5
        static let windowUpdate: UInt8 = 8
        static let continuation: UInt8 = 9
    }

    private let role: HTTP2Role
    private let maxFrameBytes: Int
    private var isFirstFrame = true
    private var prefaceIsDue: Bool
    private var unfinishedBlock: UInt32?
    private var begun: Set<UInt32> = []
    private var ended: Set<UInt32> = []
    private var dataBytes = 0

    init(role: HTTP2Role, configuration: HTTP2CodecConfiguration) {
        self.role = role
        self.maxFrameBytes = max(16_384, configuration.maxFrameBytes)
        self.prefaceIsDue = role == .client
    }

    /// Looks at the output of one turn; `creditBytes` is the most that the peer can have allowed on the connection.
    mutating func inspect(_ output: [ByteBuffer], creditBytes: Int) throws(FuzzFinding) {
        var bytes: [UInt8] = []
        for buffer in output { bytes.append(contentsOf: buffer.readableBytesView) }
        var rest = bytes[...]
        if self.prefaceIsDue, !rest.isEmpty {
            try expect(rest.starts(with: CodecInput.preface), "a client's first bytes are the preface")
            rest = rest.dropFirst(CodecInput.preface.count)
            self.prefaceIsDue = false
        }
        while !rest.isEmpty {
            guard let frame = WireFrame(rest), rest.count >= WireFrame.headerBytes + frame.length else {
                throw FuzzFinding("output is cut between frames", "\(rest.count) bytes are left over")
            }
            let payload = rest.dropFirst(WireFrame.headerBytes).prefix(frame.length)
            try self.inspect(frame, payload: payload)
            rest = rest.dropFirst(WireFrame.headerBytes + frame.length)
        }
        try expect(
            self.dataBytes <= creditBytes,
            "data stays within the peer's connection window",
            "\(self.dataBytes) bytes sent, \(creditBytes) allowed"
        )
    }

    private mutating func inspect(_ frame: WireFrame, payload: ArraySlice<UInt8>) throws(FuzzFinding) {
        if self.isFirstFrame {
            try expect(frame.type == Kind.settings && frame.flags & 1 == 0, "the first frame sent is SETTINGS")
            self.isFirstFrame = false
        }
        try expect(frame.length <= self.maxFrameBytes, "no frame sent is too large", "\(frame.length)")
        if let block = self.unfinishedBlock {
            let continues = frame.type == Kind.continuation && frame.streamID == block
            try expect(continues, "a header block is continued without a break", "type \(frame.type)")
        } else {
            try expect(frame.type != Kind.continuation, "a CONTINUATION continues something")
        }
        switch frame.type {
        case Kind.data:
            self.dataBytes += frame.length
            let isOpen = self.begun.contains(frame.streamID) && !self.ended.contains(frame.streamID)
            try expect(isOpen, "DATA is sent on streams that are open", "\(frame.streamID)")
            if frame.flags & 1 != 0 { self.ended.insert(frame.streamID) }
        case Kind.headers:
            let isOpen = frame.streamID != 0 && !self.ended.contains(frame.streamID)
            try expect(isOpen, "HEADERS are sent on streams that are open", "\(frame.streamID)")
            self.begun.insert(frame.streamID)
            if frame.flags & 1 != 0 { self.ended.insert(frame.streamID) }
            self.unfinishedBlock = frame.flags & 4 == 0 ? frame.streamID : nil
        case Kind.continuation:
            if frame.flags & 4 != 0 { self.unfinishedBlock = nil }
        case Kind.reset:
            self.ended.insert(frame.streamID)
        case Kind.windowUpdate:
            let isZero = payload.allSatisfy { $0 == 0 }
            try expect(payload.count == 4 && !isZero, "a WINDOW_UPDATE adds something")
        case Kind.pushPromise:
            throw FuzzFinding("nothing is pushed")
        default:
            try expect(frame.type <= Kind.continuation, "only known frames are sent", "type \(frame.type)")
        }
    }

    /// The most that the frames in an input can credit to the connection, in bytes.
    static func creditBytes(in frames: [UInt8], role: HTTP2Role) -> Int {
        var credit = 65_535
        var rest = frames[...]
        if role == .server { rest = rest.dropFirst(CodecInput.preface.count) }
        while let frame = WireFrame(rest) {
            let payload = rest.dropFirst(WireFrame.headerBytes).prefix(frame.length)
            if frame.type == Kind.windowUpdate, frame.streamID == 0, payload.count == 4 {
                let increment = payload.reduce(0) { $0 << 8 | Int($1) } & 0x7fff_ffff
                credit += increment
            }
            rest = rest.dropFirst(WireFrame.headerBytes + frame.length)
        }
        return credit
    }
}
