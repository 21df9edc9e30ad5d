// SPDX-License-Identifier: Apache-2.0

import CertificateAuthority
import Foundation
import Subprocess
import SystemPackage
import Testing

@Suite("Development certificates")
struct CertificateFolderTests {
    private static let leaves = [
        LeafCertificate(
            name: "gateway",
            subjectAlternativeNames: [
                .dns("gateway.test"), .address("127.0.0.1"), .address("::1"), .uri("test:gateway"),
            ]
        ),
        LeafCertificate(name: "client", subjectAlternativeNames: [.uri("test:client")], isServer: false),
    ]

    private static func withFolder(_ body: (CertificateFolder) async throws -> Void) async throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("certs-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        try await body(CertificateFolder(path: path))
    }

    private static func openssl(_ arguments: [String]) async throws -> (status: String, text: String) {
        let result = try await Subprocess.run(
            .name("openssl"),
            arguments: Arguments(arguments),
            output: .string(limit: 1 << 16),
            error: .string(limit: 1 << 16)
        )
        return ("\(result.terminationStatus)", result.standardOutput + result.standardError)
    }

    @Test("openssl verifies each leaf for its purpose, and for no other")
    func verified() async throws {
        try await Self.withFolder { folder in
            let entries = try folder.make(Self.leaves, replacing: false)
            #expect(entries.map(\.name) == ["ca", "gateway", "client"])
            func verify(_ name: String, _ arguments: [String]) async throws -> Bool {
                let output = try await Self.openssl(
                    ["verify", "-x509_strict", "-CAfile", "\(folder.path)/ca.pem"] + arguments
                        + ["\(folder.path)/\(name).pem"]
                )
                return output.text.contains("\(name).pem: OK")
            }
            #expect(try await verify("gateway", ["-purpose", "sslserver", "-verify_hostname", "gateway.test"]))
            #expect(try await verify("gateway", ["-purpose", "sslclient", "-verify_ip", "127.0.0.1"]))
            #expect(try await verify("gateway", ["-purpose", "sslserver", "-verify_ip", "::1"]))
            #expect(try await verify("client", ["-purpose", "sslclient"]))
            #expect(try await !verify("client", ["-purpose", "sslserver"]))
            #expect(try await !verify("gateway", ["-verify_hostname", "elsewhere.test"]))
            let text = try await Self.openssl(["x509", "-noout", "-text", "-in", "\(folder.path)/gateway.pem"]).text
            #expect(text.contains("URI:test:gateway"))
            #expect(text.contains("ASN1 OID: prime256v1"))
        }
    }

    @Test("only the owner can read keys")
    func modes() async throws {
        try await Self.withFolder { folder in
            for entry in try folder.make(Self.leaves, replacing: false) {
                let attributes = try FileManager.default.attributesOfItem(atPath: entry.key)
                #expect((attributes[.posixPermissions] as? NSNumber)?.intValue == 0o600, "\(entry.key)")
            }
            let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
            #expect(
                names == ["ca-key.pem", "ca.pem", "client-key.pem", "client.pem", "gateway-key.pem", "gateway.pem"]
            )
        }
    }

    @Test("leaves are replaced only on request, and the authority never")
    func replacing() async throws {
        try await Self.withFolder { folder in
            _ = try folder.make(Self.leaves, replacing: false)
            let authority = try String(contentsOfFile: "\(folder.path)/ca.pem", encoding: .utf8)
            let gateway = try String(contentsOfFile: "\(folder.path)/gateway.pem", encoding: .utf8)
            let error = #expect(throws: CertificateError.self) { try folder.make(Self.leaves, replacing: false) }
            #expect(error?.description.contains("gateway.pem") == true)
            #expect(error?.description.contains("--force") == true)
            let entries = try folder.make(Self.leaves, replacing: true)
            #expect(entries[0].isReused)
            #expect(try String(contentsOfFile: "\(folder.path)/ca.pem", encoding: .utf8) == authority)
            #expect(try String(contentsOfFile: "\(folder.path)/gateway.pem", encoding: .utf8) != gateway)
        }
    }

    @Test("half an authority, an expired one and one with another's key are named as such")
    func brokenAuthority() async throws {
        try await Self.withFolder { folder in
            let longAgo = Date(timeIntervalSince1970: 0)
            try FileManager.default.createDirectory(atPath: folder.path, withIntermediateDirectories: true)
            let ended = try CertificateAuthority(now: longAgo, days: 1)
            try ended.certificatePEM.write(toFile: "\(folder.path)/ca.pem", atomically: true, encoding: .utf8)
            let half = #expect(throws: CertificateError.self) { try folder.make(Self.leaves, replacing: false) }
            #expect(half?.description.contains("ca-key.pem") == true)
            try ended.keyPEM.write(
                toFile: "\(folder.path)/ca-key.pem",
                atomically: true,
                encoding: .utf8
            )
            let over = #expect(throws: CertificateError.self) { try folder.make(Self.leaves, replacing: false) }
            #expect(over?.description.contains("1970-01-02") == true)
            let other = try CertificateAuthority()
            try other.certificatePEM.write(toFile: "\(folder.path)/ca.pem", atomically: true, encoding: .utf8)
            let mismatch = #expect(throws: CertificateError.self) { try folder.make(Self.leaves, replacing: false) }
            #expect(mismatch?.description.contains("does not belong") == true)
        }
    }

    @Test("a leaf ends with its authority at the latest")
    func clipped() throws {
        let now = Date(timeIntervalSince1970: 1_800_000_000)
        let authority = try CertificateAuthority(now: now, days: 10)
        let leaf = try authority.issue(Self.leaves[0], now: now)
        #expect(leaf.notAfter == authority.notAfter)
    }

    @Test("what a certificate cannot hold is refused with the limit")
    func refused() throws {
        let authority = try CertificateAuthority()
        func message(_ leaf: LeafCertificate) -> String {
            #expect(throws: CertificateError.self) { try authority.issue(leaf) }?.description ?? ""
        }
        let long = LeafCertificate(name: String(repeating: "a", count: 65), subjectAlternativeNames: [.dns("a")])
        #expect(message(long).contains("65 characters, but must have from 1 to 64"))
        let name = LeafCertificate(name: "a", subjectAlternativeNames: [.dns("a b")])
        #expect(message(name).contains("\"a b\" may have only printable ASCII"))
        let address = LeafCertificate(name: "a", subjectAlternativeNames: [.address("1.2.3")])
        #expect(message(address).contains("\"1.2.3\" is not an IP address"))
        let neither = LeafCertificate(name: "a", subjectAlternativeNames: [], isServer: false, isClient: false)
        #expect(message(neither).contains("for servers, for clients or for both"))
        let late = #expect(throws: CertificateError.self) { try CertificateAuthority(days: 9_000_000) }
        #expect(late?.description.contains("give fewer days") == true)
    }

    @Test("a key of another kind, or with a password, is refused without a prompt")
    func otherKeys() async throws {
        let authority = try CertificateAuthority()
        for arguments in [
            ["genpkey", "-algorithm", "ED25519"],
            ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes-256-cbc", "-pass", "pass:x"],
        ] {
            let key = try await Self.openssl(arguments).text
            let error = #expect(throws: CertificateError.self) {
                try CertificateAuthority(certificatePEM: authority.certificatePEM, keyPEM: key)
            }
            #expect(error?.description.contains("not an ECDSA P-256 key in PEM") == true, "\(arguments)")
        }
    }

    @Test("an authority made by openssl signs too, under its own key identifier")
    func foreignAuthority() async throws {
        try await Self.withFolder { folder in
            try FileManager.default.createDirectory(atPath: folder.path, withIntermediateDirectories: true)
            let made = try await Self.openssl([
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                "/O=Elsewhere/CN=Some CA", "-days", "30", "-keyout", "\(folder.path)/ca-key.pem", "-out",
                "\(folder.path)/ca.pem",
            ])
            #expect(made.status == "exited(0)", "\(made.text)")
            let entries = try folder.make(Self.leaves, replacing: false)
            #expect(entries.first?.isReused == true)
            let verified = try await Self.openssl([
                "verify", "-CAfile", "\(folder.path)/ca.pem", "\(folder.path)/gateway.pem",
            ])
            #expect(verified.text.contains("gateway.pem: OK"), "\(verified.text)")
        }
    }

    @Test(
        "hosts are addresses or DNS names",
        arguments: [
            ("127.0.0.1", LeafCertificate.SubjectName.address("127.0.0.1")), ("::1", .address("::1")),
            ("gateway", .dns("gateway")), ("*.experts.test", .dns("*.experts.test")),
            ("a-1.b_2.test", .dns("a-1.b_2.test")),
        ]
    )
    func hosts(text: String, name: LeafCertificate.SubjectName) throws {
        #expect(try LeafCertificate.SubjectName(host: text) == name)
    }

    @Test("an invalid host is refused", arguments: ["", "a b", "host:7400", "[::1]", "-a.test", "a..b", "*", "*.*.a"])
    func noHosts(text: String) {
        #expect(throws: CertificateError.self) { try LeafCertificate.SubjectName(host: text) }
    }
}
