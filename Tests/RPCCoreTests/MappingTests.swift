// SPDX-License-Identifier: Apache-2.0

import RPCCore
import Testing

@Suite struct MappingTests {
    @Test(arguments: [
        (400, Status.Code.internal), (431, .internal), (401, .unauthenticated), (403, .permissionDenied),
        (404, .unimplemented), (429, .unavailable), (502, .unavailable), (503, .unavailable), (504, .unavailable),
        (200, .unknown), (500, .unknown), (302, .unknown), (0, .unknown),
    ])
    func `an HTTP status has its code`(httpStatus: Int, code: Status.Code) {
        #expect(HTTPStatusMapping.code(forHTTPStatus: httpStatus) == code)
    }

    @Test(arguments: [
        (ResetCode.refusedStream, Status.Code.unavailable), (.cancel, .cancelled),
        (.enhanceYourCalm, .resourceExhausted), (.inadequateSecurity, .permissionDenied), (.noError, .internal),
        (.protocolError, .internal), (.internalError, .internal), (.http11Required, .internal),
        (ResetCode(rawValue: 0xFFFF_FFFF), .internal),
    ])
    func `a reset has its code`(reset: ResetCode, code: Status.Code) {
        #expect(ResetCodeMapping.code(for: reset) == code)
    }

    @Test func `there are seventeen codes with their numbers and names`() {
        #expect(Status.Code.allCases.map(\.rawValue) == Array(0...16))
        #expect(Set(Status.Code.allCases.map(\.name)).count == 17)
        #expect(Status.Code(rawValue: 17) == nil)
        #expect(Status(code: .notFound, message: "no such pool").description == "NOT_FOUND: no such pool")
        #expect(ResetCode(rawValue: 0xD).description == "HTTP_1_1_REQUIRED")
        #expect(ResetCode(rawValue: 0xE).description == "0xe")
    }

    @Test func `an error is never OK`() {
        #expect(RPCError(.ok, "odd").code == .unknown)
        #expect(RPCError(status: .ok) == nil)
        #expect(RPCError(status: Status(code: .aborted, message: "m"))?.status == Status(code: .aborted, message: "m"))
    }

    @Test(arguments: [
        ("/switchyard.v1.Gateway/Generate", "switchyard.v1.Gateway", "Generate"), ("/a/b", "a", "b"),
        ("/prefix/a/b", "prefix/a", "b"),
    ])
    func `a path names a method`(path: String, service: String, name: String) throws {
        let method = try #require(Method(path: path))
        #expect(method == Method(service: service, name: name))
        #expect(method.path == path)
    }

    @Test(arguments: ["", "/", "//", "/a", "a/b", "/a/", "//b", "ab"])
    func `another path names none`(path: String) {
        #expect(Method(path: path) == nil)
    }
}
