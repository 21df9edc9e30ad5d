// SPDX-License-Identifier: Apache-2.0

extension UInt64 {
    /// A model fingerprint as text, in manifests, messages, metrics and reports: sixteen hexadecimal digits.
    public var fingerprintText: String {
        let digits = String(self, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
