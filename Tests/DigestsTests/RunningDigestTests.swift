// SPDX-License-Identifier: Apache-2.0

import Digests
import Testing

@Suite("Digests")
struct RunningDigestTests {
    private static let long = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"

    @Test(
        "the examples of FIPS 180-4 come out",
        arguments: [
            (RunningDigest.Algorithm.sha256, "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (.sha256, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (.sha256, long, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"),
            (.sha1, "", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            (.sha1, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (.sha1, long, "84983e441c3bd26ebaae4aa1f95129e5e54670f1"),
        ]
    )
    func examples(algorithm: RunningDigest.Algorithm, text: String, hexadecimal: String) throws {
        let digest = try RunningDigest(algorithm)
        digest.update(Array(text.utf8))
        #expect(RunningDigest.hexadecimal(try digest.digest()) == hexadecimal)
    }

    @Test("pieces add up to the whole, and asking on the way changes nothing")
    func pieces() throws {
        let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let digest = try RunningDigest(.sha256)
        for start in stride(from: 0, to: bytes.count, by: 777) {
            let end = min(bytes.count, start + 777)
            digest.update(Array(bytes[start..<end]))
            #expect(try digest.digest() == RunningDigest.sha256(Array(bytes[..<end])))
        }
        #expect(try digest.digest() == RunningDigest.sha256(bytes))
    }

    @Test("digests are equal only as a whole")
    func equality() throws {
        let one = try RunningDigest.sha256([1])
        #expect(RunningDigest.areEqual(one, one))
        #expect(RunningDigest.areEqual([], []))
        for index in one.indices {
            var other = one
            other[index] ^= 1
            #expect(!RunningDigest.areEqual(one, other))
        }
        #expect(!RunningDigest.areEqual(one, Array(one.dropLast())))
    }
}
