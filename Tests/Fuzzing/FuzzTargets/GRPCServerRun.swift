// SPDX-License-Identifier: Apache-2.0

import RPCCore

/// Steps of the server's call machine in any order: whatever a peer and a handler do, the answers must fit together.
struct GRPCServerRun: ~Copyable {
    private var source: ByteSource
    private var state = ServerCallState(encodings: ["gzip"])
    private var heads = 0
    private var endings = 0
    private var isAborted = false

    static func run(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        var run = Self(source: ByteSource(bytes))
        var steps = 0
        while !run.source.isAtEnd && steps < 200 {
            steps += 1
            try run.step(&trace)
            try run.check()
        }
    }

    private init(source: ByteSource) {
        self.source = source
    }

    private mutating func step(_ trace: inout Trace) throws(FuzzFinding) {
        try expect(self.state.checkInvariants() == nil, "the machine keeps its rules")
        let wasEnded = self.state.isEnded
        let step = self.source.number(below: 12)
        trace.note(step)
        switch step {
        case 0, 1:
            let fields = self.source.requestBlock()
            let endStream = self.source.byte() < 60
            switch self.state.headersReceived(fields, endStream: endStream, now: CodecInput.epoch) {
            case .route(let head, let deadline):
                try expect(!wasEnded, "an ended call routes nothing")
                try expect(deadline == nil || head.timeout != nil, "a deadline comes from a timeout")
                if let deadline {
                    let left = deadline - CodecInput.epoch
                    try expect(left >= .zero && left <= Timeout.horizon, "a deadline is within the horizon")
                }
                trace.note(100)
            case .end(let ending): try self.end(ending, wasEnded: wasEnded, &trace)
            case .reset: self.isAborted = true
            case .ignore: try expect(wasEnded, "only an ended call ignores headers")
            }
        case 2, 3:
            switch self.state.messageReceived(isCompressed: self.source.byte() < 100) {
            case .deliver, .decompress("gzip"): try expect(!wasEnded, "an ended call delivers nothing")
            case .decompress(let encoding): throw FuzzFinding("only offered encodings are decompressed", encoding)
            case .drop: break
            case .end(let ending): try self.end(ending, wasEnded: wasEnded, &trace)
            }
        case 4:
            if case .end(let ending) = self.state.requestEnded() {
                try self.end(ending, wasEnded: wasEnded, &trace)
            }
        case 5:
            _ = self.state.methodFound(self.source.choice(CallShape.allCases, default: .unary))
        case 6, 7:
            switch self.state.messageSent(initialMetadata: self.source.metadata()) {
            case .sendHead(let head): try self.head(head.fields(), wasEnded: wasEnded)
            case .send: try expect(!wasEnded && self.heads == 1, "a message follows the head")
            case .drop, .refuse: break
            }
        case 8:
            if let head = self.state.headSent(self.source.metadata()) {
                try self.head(head.fields(), wasEnded: wasEnded)
            }
        case 9:
            if let ending = self.state.statusSent(self.source.status(), metadata: self.source.metadata()) {
                try self.end(ending, wasEnded: wasEnded, &trace)
            }
        case 10:
            try self.abort(self.state.peerLeft(), wasEnded: wasEnded)
        default:
            let expired = self.source.byte() < 128
            try self.abort(expired ? self.state.deadlineExpired() : self.state.cancelled(), wasEnded: wasEnded)
        }
        if wasEnded { try expect(self.state.isEnded, "an ended call stays ended") }
    }

    private func check() throws(FuzzFinding) {
        try expect(self.heads <= 1, "a call has one head")
        try expect(self.endings <= 1, "a call ends once")
        let isOver = self.endings == 1 || self.isAborted
        try expect(!isOver || self.state.isEnded, "what ends a call ends its machine")
    }

    private mutating func head(_ fields: [HeaderField], wasEnded: Bool) throws(FuzzFinding) {
        self.heads += 1
        try expect(!wasEnded, "an ended call sends no head")
        try expect(fields.first?.name == ":status", "a head begins with the status")
        try expectSendable(fields)
    }

    private mutating func end(
        _ ending: ServerCallState.Ending,
        wasEnded: Bool,
        _ trace: inout Trace
    ) throws(FuzzFinding) {
        self.endings += 1
        try expect(!wasEnded && self.state.isEnded, "an end ends an open call")
        try expectSendable(ending.fields)
        let isWhole = ending.fields.first?.name == ":status"
        try expect(isWhole == (self.heads == 0), "an end is a whole response exactly where no head was sent")
        let trailers = Trailers.parse(ending.fields)
        trace.note(200 + Int(trailers.status.code.rawValue))
    }

    private mutating func abort(_ action: ServerCallState.OnAbort, wasEnded: Bool) throws(FuzzFinding) {
        switch action {
        case .cancelHandler:
            try expect(!wasEnded, "an ended call is not cancelled")
            self.isAborted = true
        case .ignore:
            try expect(wasEnded, "an open call is cancelled")
        }
    }
}
