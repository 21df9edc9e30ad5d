// SPDX-License-Identifier: Apache-2.0

import HTTP2Session
import NIOCore

/// Checks that a codec's events tell a possible story, stream by stream.
struct StreamLedger {
    private struct Entry {
        var hasFirstBlock = false
        var hasEnded = false
        var isClosed = false
    }

    private let role: HTTP2Role
    private let limitBytes: Int
    private var entries: [Int32: Entry] = [:]
    /// The fields of each block that was said to come again.
    private var recurrences: [Int: [HTTP2HeaderField]] = [:]

    init(role: HTTP2Role, configuration: HTTP2CodecConfiguration) {
        self.role = role
        self.limitBytes = configuration.maxHeaderListBytes
    }

    /// The streams that were announced and not closed.
    var openStreams: [Int32] { self.entries.filter { !$0.value.isClosed }.map(\.key).sorted() }

    /// A client opened a stream.
    mutating func opened(_ streamID: Int32) throws(FuzzFinding) {
        try expect(self.entries[streamID] == nil, "a stream's identifier is new", "\(streamID)")
        self.entries[streamID] = Entry()
    }

    /// An event came.
    mutating func note(_ event: HTTP2Event, _ trace: inout Trace) throws(FuzzFinding) {
        switch event {
        case .headers(let block):
            let size = block.fields.reduce(block.variable?.listSizeBytes ?? 0) { $0 + $1.listSizeBytes }
            if let recurrence = block.recurrence {
                let before = self.recurrences[recurrence] ?? block.fields
                try expect(before == block.fields, "blocks with one number have the same fields", "\(recurrence)")
                self.recurrences[recurrence] = block.fields
            }
            try expect(size <= self.limitBytes, "a header list is within its limit", "\(size)")
            try self.block(block.streamID, block.kind, endStream: block.endStream, &trace)
        case .headersTooLarge(let streamID, let kind, let sizeBytes, let limitBytes):
            try expect(sizeBytes > limitBytes && limitBytes == self.limitBytes, "too large means over the limit")
            trace.note(2)
            try self.block(streamID, kind, endStream: false, &trace)
        case .data(let streamID, let bytes):
            var entry = try self.open(streamID, "data")
            try expect(entry.hasFirstBlock && !entry.hasEnded, "data comes between headers and end", "\(streamID)")
            try expect(bytes.readableBytes > 0, "data is not empty", "\(streamID)")
            entry.hasFirstBlock = true
            self.entries[streamID] = entry
            trace.note(3)
            trace.note(size: bytes.readableBytes)
        case .endOfStream(let streamID):
            var entry = try self.open(streamID, "the end")
            try expect(entry.hasFirstBlock && !entry.hasEnded, "a stream ends once, after its headers", "\(streamID)")
            entry.hasEnded = true
            self.entries[streamID] = entry
            trace.note(4)
        case .streamClosed(let streamID, let code, let origin):
            // A server's stream can close before its first block was complete: a malformed request.
            if self.role == .server, self.entries[streamID] == nil { self.entries[streamID] = Entry() }
            var entry = try self.open(streamID, "the close")
            entry.isClosed = true
            self.entries[streamID] = entry
            trace.note(5)
            trace.note(min(code.rawValue, 20))
            trace.note(origin.hashNumber)
        case .drained(let streamID):
            _ = try self.open(streamID, "drained")
            trace.note(6)
        case .settings: trace.note(7)
        case .settingsAcknowledged: trace.note(8)
        case .ping: trace.note(9)
        case .pingAcknowledged: trace.note(10)
        case .goAway(_, let code, let debug):
            try expect(debug.utf8.count <= 600, "debug data is bounded", "\(debug.utf8.count) bytes")
            trace.note(11)
            trace.note(min(code.rawValue, 20))
        }
    }

    private mutating func block(
        _ streamID: Int32,
        _ kind: HTTP2HeaderBlock.Kind,
        endStream: Bool,
        _ trace: inout Trace
    ) throws(FuzzFinding) {
        if self.role == .server, kind == .request {
            try expect(self.entries[streamID] == nil, "a request comes once for a stream", "\(streamID)")
            try expect(streamID & 1 == 1, "a client's stream has an odd identifier", "\(streamID)")
            self.entries[streamID] = Entry()
        }
        var entry = try self.open(streamID, "a header block")
        try expect(!entry.hasEnded, "nothing follows the end", "\(streamID)")
        switch (self.role, kind) {
        case (.server, .request), (.client, .response):
            try expect(!entry.hasFirstBlock, "the first block comes first", "\(streamID)")
            entry.hasFirstBlock = true
        case (.client, .interim):
            try expect(!entry.hasFirstBlock, "an interim response comes before the final one", "\(streamID)")
        case (_, .trailers):
            try expect(entry.hasFirstBlock, "trailers come after the first block", "\(streamID)")
        default:
            throw FuzzFinding("a block's kind fits the role", "\(kind)")
        }
        if endStream { entry.hasEnded = true }
        self.entries[streamID] = entry
        trace.note(1)
        trace.note(endStream ? 101 : 100)
    }

    private func open(_ streamID: Int32, _ what: String) throws(FuzzFinding) -> Entry {
        guard let entry = self.entries[streamID] else {
            throw FuzzFinding("\(what) belongs to a stream that was opened", "\(streamID)")
        }
        try expect(!entry.isClosed, "\(what) comes before the close", "\(streamID)")
        return entry
    }
}

extension StreamCloseOrigin {
    /// A number for the trace.
    var hashNumber: Int {
        switch self {
        case .local: 0
        case .peer: 1
        case .neverProcessed: 2
        case .fault: 3
        case .neverSent: 4
        }
    }
}
