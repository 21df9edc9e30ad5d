// SPDX-License-Identifier: Apache-2.0

import ServiceKit
import Testing

@Suite("Addresses that servers share")
struct SharedAddressTests {
    @Test("a star is every address of the machine, of both families where it has them")
    func star() throws {
        let all = try ListenAddress(parsing: "*:7400")
        #expect(all == ListenAddress(host: "*", port: 7400))
        #expect("\(all)" == "*:7400")
        #expect(["::", "0.0.0.0"].contains(all.boundHost))
        #expect(try ListenAddress(parsing: ":7400").boundHost == "0.0.0.0")
        #expect(try ListenAddress(parsing: "[::1]:7400").boundHost == "::1")
    }

    @Test(
        "two servers cannot share a port unless their hosts differ",
        arguments: [
            ("a:1", "a:1", true), ("a:1", "a:2", false), ("a:1", "b:1", false), ("*:1", "b:1", true),
            ("a:1", "[::]:1", true), (":1", "127.0.0.1:1", true), ("a:0", "a:0", false),
        ]
    )
    func overlap(one: String, other: String, expected: Bool) throws {
        let (one, other) = (try ListenAddress(parsing: one), try ListenAddress(parsing: other))
        #expect(one.overlaps(other) == expected)
        #expect(other.overlaps(one) == expected)
    }
}
