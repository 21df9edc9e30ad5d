// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Checkpoints

@Suite struct HashTests {
    /// Published values of XXH64.
    @Test(
        arguments: [
            ("", 0, 0xEF46_DB37_51D8_E999),
            ("a", 0, 0xD24E_C4F1_A98C_6E5B),
            ("abc", 0, 0x44BC_2CF5_AD77_0999),
            ("Nobody inspects the spammish repetition", 0, 0xFBCE_A83C_8A37_8BF1),
            ("xxhash", 20_141_025, 0xB559_B98D_844E_0635),
        ] as [(String, UInt64, UInt64)]
    )
    func knownValues(text: String, seed: UInt64, hash: UInt64) {
        #expect(XXHash64.hash(Array(text.utf8), seed: seed) == hash)
    }

    @Test(arguments: [0, 1, 0xDEAD_BEEF, UInt64.max])
    func fingerprintsAreSixteenDigits(value: UInt64) {
        let text = Fingerprint.text(value)
        #expect(text.count == 16)
        #expect(Fingerprint.value(text) == value)
    }

    @Test(arguments: ["", "12", "+123456789abcdef", "0123456789abcdefg", "0123456789abcdex"])
    func otherTextIsNoFingerprint(text: String) {
        #expect(Fingerprint.value(text) == nil)
    }
}
