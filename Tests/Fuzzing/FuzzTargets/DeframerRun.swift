// SPDX-License-Identifier: Apache-2.0

import RPCCore

/// Length-prefixed messages, whole and in pieces.
enum DeframerRun {
    private struct Outcome: Equatable {
        var messages: [Message] = []
        var error: Status.Code?
    }

    private struct Message: Equatable {
        var isCompressed: Bool
        var length: Int
        var bytes: [UInt8] = []
        var isComplete = false
    }

    static func run(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        var source = ByteSource(bytes)
        let limit = [0, 5, 300, 1 << 16][source.number(below: 4)]
        var random = SplitMix64(seed: UInt64(source.byte()))
        let stream = source.rest()
        let whole = try Self.outcome(stream, limit: limit) { $0 }
        let single = try Self.outcome(stream, limit: limit) { min($0, 1) }
        let jumping = try Self.outcome(stream, limit: limit, takesWhole: true) { $0 }
        try expect(whole == jumping, "a message taken whole is the same message")
        let mixed = try Self.outcome(stream, limit: limit) { min($0, 1 + random.below(20)) }
        try expect(whole == single && whole == mixed, "messages do not depend on how bytes are split")
        trace.note(whole.error?.rawValue ?? 99)
        trace.note(size: whole.messages.count)
        for message in whole.messages {
            try expect(message.length <= limit, "no message over the limit begins", "\(message.length)")
            try expect(!message.isComplete || message.bytes.count == message.length, "a message has its length")
            trace.note(message.isCompressed ? 1 : 0)
            trace.note(size: message.length)
        }
        // What is complete can be framed again and is then what it was.
        if whole.error == nil {
            let again = whole.messages
                .flatMap { MessagePrefix(length: $0.length, isCompressed: $0.isCompressed).bytes + $0.bytes }
            try expect(again == stream, "framing undoes deframing")
        }
    }

    private static func outcome(
        _ stream: [UInt8],
        limit: Int,
        takesWhole: Bool = false,
        _ next: (Int) -> Int
    ) throws(FuzzFinding) -> Outcome {
        var deframer = MessageDeframer(maxMessageBytes: limit)
        var outcome = Outcome()
        var position = 0
        // A piece that is empty may come at any time.
        var pieceEnd = 0
        var turns = 0
        while true {
            turns += 1
            try expect(turns < 8 * stream.count + 16, "the deframer moves on")
            if takesWhole, deframer.isBetweenMessages,
                let message = try Self.wholeMessage(stream[position..<pieceEnd], limit, &deframer)
            {
                outcome.messages.append(message)
                position += MessagePrefix.byteCount + message.length
            }
            let step = stream[position..<pieceEnd]
                .withUnsafeBytes { piece in
                    Result<MessageDeframer.Step, RPCError> { () throws(RPCError) in try deframer.next(piece) }
                }
            switch step {
            case .failure(let error):
                outcome.error = error.code
                try expect(Self.code { () throws(RPCError) in try deframer.end() } == error.code, "an error stays")
                return outcome
            case .success(let step):
                try expect(step.consumed <= pieceEnd - position, "the deframer accepts every input")
                let taken = stream[position..<position + step.consumed]
                position += step.consumed
                switch step.event {
                case .needsBytes:
                    try expect(position == pieceEnd, "all bytes are used before more are requested")
                    if position == stream.count {
                        outcome.error = Self.code { () throws(RPCError) in try deframer.end() }
                        let isBetween = outcome.error == nil
                        try expect(deframer.isBetweenMessages == isBetween, "a stream may end between messages")
                        return outcome
                    }
                    pieceEnd = position + max(1, next(stream.count - position))
                case .began(let prefix):
                    outcome.messages.append(Message(isCompressed: prefix.isCompressed, length: prefix.length))
                case .body(let isLast):
                    let last = outcome.messages.count - 1
                    try expect(last >= 0, "a message begins before its body")
                    outcome.messages[last].bytes += taken
                    outcome.messages[last].isComplete = isLast
                }
            }
        }
    }

    /// Takes the message that lies whole at the front, if there is one and it is legal.
    private static func wholeMessage(
        _ piece: ArraySlice<UInt8>,
        _ limit: Int,
        _ deframer: inout MessageDeframer
    ) throws(FuzzFinding) -> Message? {
        let prefix = Array(piece.prefix(MessagePrefix.byteCount))
        guard prefix.count == MessagePrefix.byteCount, prefix[0] <= 1 else { return nil }
        let length = prefix[1...].reduce(0 as UInt32) { $0 << 8 | UInt32($1) }
        guard Int(length) <= limit, piece.count >= MessagePrefix.byteCount + Int(length) else { return nil }
        do throws(RPCError) {
            let taken = try deframer.wholeMessage(flag: prefix[0], length: length)
            let body = Array(piece.dropFirst(MessagePrefix.byteCount).prefix(taken.length))
            return Message(isCompressed: taken.isCompressed, length: taken.length, bytes: body, isComplete: true)
        } catch {
            throw FuzzFinding("a legal message can be taken whole", error.description)
        }
    }

    private static func code(_ body: () throws(RPCError) -> Void) -> Status.Code? {
        do throws(RPCError) {
            try body()
            return nil
        } catch {
            return error.code
        }
    }
}
