// SPDX-License-Identifier: Apache-2.0

import RPCCore

/// Header blocks: what is read from one can be written, and is read the same again.
enum HeadsRun {
    static func run(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        var source = ByteSource(bytes)
        switch source.number(below: 4) {
        case 0: try Self.request(&source, &trace)
        case 1: try Self.response(&source, &trace)
        case 2: try Self.trailers(&source, &trace)
        default: try Self.metadata(&source, &trace)
        }
    }

    private static func request(_ source: inout ByteSource, _ trace: inout Trace) throws(FuzzFinding) {
        switch RequestHead.parse(source.requestBlock()) {
        case .call(var head):
            trace.note(1)
            trace.note(head.metadata.count)
            trace.note(head.timeout == nil ? 0 : 1)
            // What this side writes always announces that trailers are read.
            head.announcesTrailers = true
            guard case .call(let again) = RequestHead.parse(head.fields()) else {
                throw FuzzFinding("a head that was read can be written and read", "\(head)")
            }
            try expect(again == head, "a head is read as it was written", "\(head) became \(again)")
        case .notGRPC(let fields):
            trace.note(2)
            try expectSendable(fields)
        case .refused(let status):
            trace.note(3)
            try expect(!status.isOK, "a refusal is not a success")
            try expectSendable(Trailers(status: status).trailersOnlyFields())
        }
    }

    private static func response(_ source: inout ByteSource, _ trace: inout Trace) throws(FuzzFinding) {
        let endStream = source.byte() < 100
        switch ResponseHead.parse(source.responseBlock(), endStream: endStream) {
        case .interim:
            trace.note(10)
        case .response(let head):
            trace.note(11)
            let again = ResponseHead.parse(head.fields(), endStream: false)
            try expect(again == .response(head), "a head is read as it was written", "\(head) became \(again)")
        case .trailersOnly(let trailers):
            trace.note(12)
            try Self.check(trailers, &trace)
        case .failed(let status):
            trace.note(13)
            try expect(!status.isOK, "a failure is not a success")
        }
    }

    private static func trailers(_ source: inout ByteSource, _ trace: inout Trace) throws(FuzzFinding) {
        let made = Trailers(status: source.status(), metadata: source.metadata())
        try Self.check(made, &trace)
        let alone = ResponseHead.parse(made.trailersOnlyFields(acceptedEncodings: ["gzip"]), endStream: true)
        try expect(alone == .trailersOnly(made), "trailers alone are read as they were written", "\(made)")
        try expectSendable(made.trailersOnlyFields(acceptedEncodings: ["gzip"]))
        var block: [HeaderField] = []
        for _ in 0..<source.number(below: 6) { block.append(source.field()) }
        let code = source.byte()
        try Self.check(Trailers.parse(block, httpStatus: code < 128 ? nil : Int(code) * 3), &trace)
    }

    private static func check(_ trailers: Trailers, _ trace: inout Trace) throws(FuzzFinding) {
        trace.note(20 + Int(trailers.status.code.rawValue))
        let again = Trailers.parse(trailers.fields())
        try expect(again == trailers, "trailers are read as they were written", "\(trailers) became \(again)")
        try expectSendable(trailers.fields())
    }

    private static func metadata(_ source: inout ByteSource, _ trace: inout Trace) throws(FuzzFinding) {
        var metadata = source.metadata()
        for _ in 0..<source.number(below: 6) {
            let field = source.field()
            do throws(MetadataError) {
                try metadata.addReceived(field)
                trace.note(30)
            } catch {
                trace.note(31)
                try expect(error.code == .invalidBase64, "only broken base64 is refused", error.description)
            }
        }
        var fields: [HeaderField] = []
        metadata.append(to: &fields)
        try expectSendable(fields)
        var again = Metadata()
        for field in fields {
            do throws(MetadataError) {
                try again.addReceived(field)
            } catch {
                throw FuzzFinding("metadata that was written can be read", error.description)
            }
        }
        try expect(again == metadata, "metadata is read as it was written", "\(metadata) became \(again)")
        for entry in metadata.entries {
            let found = metadata[text: entry.key].count + metadata[binary: entry.key].count
            try expect(found > 0, "an entry is found under its key", entry.key)
        }
    }
}
