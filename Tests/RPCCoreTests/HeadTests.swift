// SPDX-License-Identifier: Apache-2.0

import RPCCore
import Testing

/// The header block of a plain request, which tests then spoil.
func requestFields(_ changes: [String: String?] = [:], adding extra: [HeaderField] = []) -> [HeaderField] {
    let fields = [
        HeaderField(":method", "POST"), HeaderField(":scheme", "http"), HeaderField(":path", "/s.v1.Service/Call"),
        HeaderField(":authority", "host:1"), HeaderField("te", "trailers"),
        HeaderField("content-type", "application/grpc"),
    ]
    return fields.compactMap { field in
        guard let change = changes[field.name] else {
            return field
        }
        return change.map { HeaderField(field.name, $0) }
    } + extra
}

@Suite struct RequestHeadTests {
    @Test func `what a client writes a server reads`() throws {
        var metadata = Metadata()
        try metadata.add("v", forKey: "k")
        try metadata.add(binary: [1, 2], forKey: "b-bin")
        let head = RequestHead(
            method: Method(service: "s.v1.Service", name: "Call"),
            scheme: "https",
            authority: "host:1",
            timeout: Timeout(covering: .seconds(3)),
            encoding: "gzip",
            acceptedEncodings: ["gzip", "deflate"],
            userAgent: "test/1",
            metadata: metadata
        )
        #expect(RequestHead.parse(head.fields()) == .call(head))
        #expect(head.fields().prefix(4).allSatisfy { $0.name.hasPrefix(":") })
        #expect(head.fields().dropFirst(4).allSatisfy { !$0.name.hasPrefix(":") })
    }

    @Test(arguments: [
        "application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8", "application/grpc ; a",
    ])
    func `a content type of gRPC is taken`(value: String) {
        guard case .call = RequestHead.parse(requestFields(["content-type": value])) else {
            Issue.record("\(value) was refused")
            return
        }
    }

    @Test(arguments: ["application/grpc-web", "application/grpcx", "application/json", "text/html", nil])
    func `another content type is HTTP 415`(value: String?) {
        let parsed = RequestHead.parse(
            requestFields(["content-type": value], adding: [HeaderField("grpc-timeout", "x")])
        )
        guard case .notGRPC(let fields) = parsed else {
            Issue.record("not refused")
            return
        }
        #expect(fields.first == HeaderField(":status", "415"))
    }

    @Test(arguments: ["GET", "PUT", nil])
    func `another method is HTTP 405`(value: String?) {
        guard case .notGRPC(let fields) = RequestHead.parse(requestFields([":method": value])) else {
            Issue.record("not refused")
            return
        }
        #expect(fields == [HeaderField(":status", "405"), HeaderField("allow", "POST")])
    }

    @Test(arguments: [
        (requestFields([":path": "/nothing"]), Status.Code.unimplemented),
        (requestFields([":path": nil]), .unimplemented),
        (requestFields(adding: [HeaderField("grpc-timeout", "5")]), .internal),
        (requestFields(adding: [HeaderField("grpc-timeout", "123456789S")]), .internal),
        (requestFields(adding: [HeaderField("k-bin", "!!")]), .internal),
    ])
    func `a gRPC request that is wrong gets a status`(fields: [HeaderField], code: Status.Code) {
        guard case .refused(let status) = RequestHead.parse(fields) else {
            Issue.record("not refused")
            return
        }
        #expect(status.code == code)
        #expect(!status.message.isEmpty)
    }

    @Test func `a request that does not announce trailers is taken and marked`() {
        guard case .call(let head) = RequestHead.parse(requestFields(["te": nil])) else {
            Issue.record("refused")
            return
        }
        #expect(!head.announcesTrailers)
    }

    @Test func `identity is no encoding and lists are read`() {
        let fields = requestFields(adding: [
            HeaderField("grpc-encoding", "identity"), HeaderField("grpc-accept-encoding", "identity, gzip,,deflate"),
        ])
        guard case .call(let head) = RequestHead.parse(fields) else {
            Issue.record("refused")
            return
        }
        #expect(head.encoding == nil)
        #expect(head.acceptedEncodings == ["gzip", "deflate"])
        #expect(head.metadata.isEmpty)
    }
}

@Suite struct ResponseHeadTests {
    @Test func `what a server writes a client reads`() throws {
        var metadata = Metadata()
        try metadata.add("v", forKey: "k")
        let head = ResponseHead(encoding: "gzip", acceptedEncodings: ["gzip"], metadata: metadata)
        #expect(ResponseHead.parse(head.fields(), endStream: false) == .response(head))
        let trailers = Trailers(status: Status(code: .notFound, message: "50% ☺"), metadata: metadata)
        #expect(Trailers.parse(trailers.fields()) == trailers)
        #expect(ResponseHead.parse(trailers.trailersOnlyFields(), endStream: true) == .trailersOnly(trailers))
    }

    @Test(arguments: [
        ([HeaderField(":status", "503")], false, Status.Code.unavailable),
        ([HeaderField(":status", "200")], false, .unknown),
        ([HeaderField(":status", "200"), HeaderField("content-type", "text/html")], false, .unknown),
        ([HeaderField(":status", "100")], true, .internal),
        ([HeaderField("content-type", "application/grpc")], false, .internal),
        ([HeaderField(":status", "many")], false, .internal),
        (
            [
                HeaderField(":status", "200"), HeaderField("content-type", "application/grpc"),
                HeaderField("a-bin", "!"),
            ],
            false, .internal
        ),
    ])
    func `a response that is not gRPC has failed`(fields: [HeaderField], endStream: Bool, code: Status.Code) {
        guard case .failed(let status) = ResponseHead.parse(fields, endStream: endStream) else {
            Issue.record("not failed")
            return
        }
        #expect(status.code == code)
    }

    @Test func `an interim response is passed over`() {
        #expect(ResponseHead.parse([HeaderField(":status", "103")], endStream: false) == .interim)
    }

    @Test(
        arguments: [
            ([HeaderField(":status", "200")], 200, Status.Code.unknown), ([], 404, .unimplemented), ([], nil, .unknown),
            ([HeaderField("grpc-status", "17")], 200, .unknown), ([HeaderField("grpc-status", "-1")], 200, .unknown),
            ([HeaderField("grpc-status", "x")], nil, .unknown), ([HeaderField("grpc-status", "5")], 503, .notFound),
            ([HeaderField("grpc-status", "0")], nil, .ok),
            ([HeaderField("grpc-status", "0"), HeaderField("x-bin", "!")], nil, .ok),
        ] as [([HeaderField], Int?, Status.Code)]
    )
    func `trailers always have a status`(fields: [HeaderField], httpStatus: Int?, code: Status.Code) {
        #expect(Trailers.parse(fields, httpStatus: httpStatus).status.code == code)
    }
}
