// SPDX-License-Identifier: Apache-2.0

import CCurl
import Foundation
import Synchronization
import Testing

@testable import WeightFetching

@Suite("Fetching through a proxy", .serialized)
struct ProxyTests {
    private func hub() -> TestHub {
        func file(_ text: String, isLarge: Bool = false) -> TestHub.File {
            let content = ServedFile(bytes: Array(text.utf8))
            return TestHub.File(
                content: ServedFile(bytes: content.bytes, etag: "\"\(content.gitBlob)\""),
                isLarge: isLarge
            )
        }
        let weights = ServedFile(bytes: noise(200_000, seed: 3), etag: "\"weights\"")
        return TestHub(
            "test/far",
            files: ["config.json": file("{}"), "model.safetensors": TestHub.File(content: weights, isLarge: true)]
        )
    }

    private func port(_ server: WebServer) -> String { String(server.address.split(separator: ":").last ?? "") }

    @Test("TLS goes through a tunnel, and secrets go to the server but not to the proxy")
    func tunnel() async throws {
        let test = self.hub()
        test.state.withLock { $0.needsToken = true }
        try await Workplace.with { place in
            let certificate = try place.certificate()
            try await TestHub.with(test, certificate: (certificate.chain, certificate.key)) { hub, storage in
                try await ProxyServer.with { proxy in
                    let output = try await place.switchyard(
                        ["pull", "test/far", "--endpoint", hub.address, "--fetch-ca", certificate.authority],
                        environment: ["HTTPS_PROXY": proxy.address, "HF_TOKEN": TestHub.token]
                    )
                    #expect(output.status == 0, "\(output.errors)")
                    let lines = Set(proxy.requests.map(\.line))
                    #expect(
                        lines == [
                            "CONNECT 127.0.0.1:\(port(hub)) HTTP/1.1", "CONNECT 127.0.0.1:\(port(storage)) HTTP/1.1",
                        ]
                    )
                    #expect(!proxy.requests.contains { "\($0)".contains(TestHub.token) })
                    #expect(hub.requests.last?.headers["authorization"] == "Bearer \(TestHub.token)")
                    #expect(storage.requests.allSatisfy { $0.headers["authorization"] == nil })
                    #expect(storage.served == 200_000)
                }
            }
        }
    }

    @Test("a proxy that requires user and password gets those of its address, and no one else does")
    func credentials() async throws {
        let test = self.hub()
        try await Workplace.with { place in
            let certificate = try place.certificate()
            try await TestHub.with(test, certificate: (certificate.chain, certificate.key)) { hub, _ in
                let credentials = Data("user:secret".utf8).base64EncodedString()
                try await ProxyServer.with(credentials: credentials) { proxy in
                    let arguments = [
                        "pull", "test/far", "--endpoint", hub.address, "--fetch-ca", certificate.authority,
                    ]
                    let refused = try await place.switchyard(arguments, environment: ["https_proxy": proxy.address])
                    #expect(refused.status != 0)
                    #expect(refused.errors.contains("give user and password in https_proxy"), "\(refused.errors)")
                    #expect(proxy.requests.count == 1, "a refusal is final")
                    #expect(hub.requests.isEmpty)
                    let address = "http://user:secret@127.0.0.1:\(proxy.port)"
                    let output = try await place.switchyard(arguments, environment: ["https_proxy": address])
                    #expect(output.status == 0, "\(output.errors)")
                    #expect(!output.errors.contains("secret"))
                    #expect(hub.requests.allSatisfy { $0.headers["proxy-authorization"] == nil })
                }
            }
        }
    }

    @Test("plaintext goes through the proxy with its whole address, except to hosts of no_proxy")
    func plain() async throws {
        let test = self.hub()
        try await Workplace.with { place in
            try await TestHub.with(test) { hub, storage in
                try await ProxyServer.with { proxy in
                    let arguments = ["pull", "test/far", "--endpoint", hub.address]
                    let direct = try await place.switchyard(
                        arguments + ["--include", "config.json"],
                        environment: ["http_proxy": proxy.address, "no_proxy": "127.0.0.1"]
                    )
                    #expect(direct.status == 0, "\(direct.errors)")
                    #expect(proxy.requests.isEmpty)
                    let output = try await place.switchyard(arguments, environment: ["http_proxy": proxy.address])
                    #expect(output.status == 0, "\(output.errors)")
                    #expect(!proxy.requests.isEmpty)
                    #expect(proxy.requests.allSatisfy { $0.line.hasPrefix("GET http://127.0.0.1:") })
                    #expect(storage.served == 200_000)
                }
            }
        }
    }
}

@Suite("What curl's failures mean")
struct CurlReasonTests {
    @Test(
        "each says what to do, and is retried only where that may help",
        arguments: [
            (CURLE_COULDNT_RESOLVE_PROXY, 0, 0, false, "correct https_proxy", true),
            (CURLE_RECV_ERROR, 407, 0, false, "give user and password in https_proxy", false),
            (CURLE_RECV_ERROR, 403, 0, false, "does not connect to hub.test (403)", false),
            (CURLE_RECV_ERROR, 503, 0, false, "does not connect to hub.test (503)", true),
            (CURLE_RECV_ERROR, 200, 0, true, "the connection failed (words)", true),
            (CURLE_PEER_FAILED_VERIFICATION, 0, 0, false, "for another name", false),
            (CURLE_PEER_FAILED_VERIFICATION, 0, 1, false, "for another name", false),
            (CURLE_PEER_FAILED_VERIFICATION, 0, 62, false, "for another name", false),
            (CURLE_PEER_FAILED_VERIFICATION, 0, 10, false, "check this machine's clock", false),
            (CURLE_PEER_FAILED_VERIFICATION, 0, 20, false, "--fetch-ca", false),
            (CURLE_OPERATION_TIMEDOUT, 0, 0, false, "could not connect to hub.test", true),
            (CURLE_OPERATION_TIMEDOUT, 0, 0, true, "no bytes arrived", true),
            (CURLE_COULDNT_CONNECT, 0, 0, false, "(words)", true),
        ]
    )
    func reasons(
        code: CURLcode,
        proxyStatus: Int,
        verification: Int,
        wasConnected: Bool,
        part: String,
        isPassing: Bool
    ) {
        let failure = CurlReason(
            code: code,
            host: "hub.test",
            words: "words",
            proxyStatus: proxyStatus,
            verification: verification,
            wasConnected: wasConnected
        )
        .failure
        #expect(failure.reason.contains(part), "\(failure)")
        #expect(failure.isPassing == isPassing)
    }
}
