// SPDX-License-Identifier: Apache-2.0

import RPCCore

/// Steps of the client's call machine in any order: whatever the peer does, the caller learns one status.
struct GRPCClientRun: ~Copyable {
    private var source: ByteSource
    private var state: ClientCallState
    private let shape: CallShape
    private var heads = 0
    private var delivered = 0
    private var ends = 0
    private var isRequestEnded = false

    static func run(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        var source = ByteSource(bytes)
        let shape = source.choice(CallShape.allCases, default: .unary)
        var run = Self(source: source, shape: shape)
        var steps = 0
        while !run.source.isAtEnd && steps < 200 {
            steps += 1
            try run.step(&trace)
        }
        try run.end(run.state.connectionLost("lost"), &trace)
        try expect(run.ends == 1 && run.state.isEnded, "a call ends exactly once")
    }

    private init(source: ByteSource, shape: CallShape) {
        self.source = source
        self.shape = shape
        self.state = ClientCallState(shape: shape, encodings: ["gzip"])
    }

    private mutating func step(_ trace: inout Trace) throws(FuzzFinding) {
        try expect(self.state.checkInvariants() == nil, "the machine keeps its rules")
        let wasEnded = self.state.isEnded
        let step = self.source.number(below: 12)
        trace.note(step)
        switch step {
        case 0, 1, 2:
            let fields = self.source.responseBlock()
            switch self.state.headersReceived(fields, endStream: self.source.byte() < 60) {
            case .ignore: break
            case .response:
                self.heads += 1
                try expect(!wasEnded && self.heads == 1, "a call has one response")
            case .end(let end): try self.end(end, &trace)
            }
        case 3, 4:
            switch self.state.messageReceived(isCompressed: self.source.byte() < 100) {
            case .deliver, .decompress("gzip"):
                self.delivered += 1
                let isExpected = !wasEnded && self.heads == 1 && !(self.shape.hasSingleResponse && self.delivered > 1)
                try expect(isExpected, "messages come after the head, and as many as the method has")
            case .decompress(let encoding): throw FuzzFinding("only offered encodings are decompressed", encoding)
            case .drop: try expect(wasEnded, "an open call drops nothing")
            case .end(let end): try self.end(end, &trace)
            }
        case 5: try self.end(self.state.streamEndedWithoutTrailers(), &trace)
        case 6: try self.end(self.state.resetReceived(ResetCode(rawValue: UInt32(self.source.byte()))), &trace)
        case 7:
            switch self.state.messageSent() {
            case .send: try expect(!wasEnded && !self.isRequestEnded, "messages go before the end of the request")
            case .drop: try expect(wasEnded, "an open call drops nothing")
            case .refuse(let status): try expect(!status.isOK, "a refusal is not a success")
            }
        case 8:
            if case .send = self.state.requestEnded() {
                try expect(!wasEnded && !self.isRequestEnded, "a request ends once")
                self.isRequestEnded = true
            }
        case 9: try self.end(self.state.cancelled(), &trace)
        case 10: try self.end(self.state.deadlineExpired(), &trace)
        default: try self.end(self.state.failed(RPCError(.dataLoss, "broken")), &trace)
        }
        if wasEnded { try expect(self.state.isEnded, "an ended call stays ended") }
    }

    private mutating func end(_ end: ClientCallState.End?, _ trace: inout Trace) throws(FuzzFinding) {
        guard let end else { return }
        self.ends += 1
        try expect(self.ends == 1 && self.state.isEnded, "a call ends once")
        trace.note(100 + Int(end.status.code.rawValue))
        if end.status.isOK {
            try expect(
                !self.shape.hasSingleResponse || self.delivered == 1,
                "a method that answers with one message succeeds with it only"
            )
        }
    }
}
