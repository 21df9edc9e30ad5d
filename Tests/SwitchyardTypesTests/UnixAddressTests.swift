// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@Suite("Addresses of Unix sockets")
struct UnixAddressTests {
    @Test("both spellings name the same file", arguments: ["unix:/run/a.sock", "unix:///run/a.sock"])
    func spellings(text: String) throws {
        let address = try UnixAddress(parsing: text)
        #expect(address.path == "/run/a.sock")
        #expect(address.description == "unix:/run/a.sock")
        #expect(UnixAddress(host: address.host) == address)
        #expect(AddressText.of(host: address.host, port: 0) == "unix:/run/a.sock")
    }

    @Test(
        "what names no socket is refused in words",
        arguments: [
            ("unix:", "must name an absolute path"), ("unix:a.sock", "must name an absolute path"),
            ("unix://host/a.sock", "must name an absolute path"), ("unix:/run/", "must name an absolute path"),
            ("unix:/a,b", "must not hold a comma"), ("unix:/a\0b", "zero byte"),
            ("host:1", "must be written unix:/path"),
        ]
    )
    func refused(text: String, part: String) {
        let problem = #expect(throws: UnixAddress.Problem.self) { try UnixAddress(parsing: text) }
        #expect(problem?.description.contains(part) == true, "\(problem?.description ?? "")")
        #expect(UnixAddress(host: text) == nil)
    }

    @Test("a path may be as long as the system allows, and no longer")
    func length() throws {
        let longest = "/" + String(repeating: "a", count: UnixAddress.maxPathBytes - 1)
        #expect(try UnixAddress(parsing: "unix:\(longest)").path == longest)
        let problem = #expect(throws: UnixAddress.Problem.self) { try UnixAddress(parsing: "unix:\(longest)a") }
        #expect(problem?.description.contains("has \(UnixAddress.maxPathBytes + 1) bytes") == true)
    }

    @Test("other addresses are written as before")
    func others() {
        #expect(AddressText.of(host: "a", port: 1) == "a:1")
        #expect(AddressText.of(host: "::1", port: 1) == "[::1]:1")
    }
}
