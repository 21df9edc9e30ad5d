// SPDX-License-Identifier: Apache-2.0

/// A share of the requests as people write it.
public enum RequestShare {
    /// Reads a share.
    ///
    /// - Parameter text: A percentage such as `5%`, or a fraction such as `0.05`.
    /// - Returns: The fraction, which may be out of bounds; nil for a text that is no number.
    public static func parse(_ text: String) -> Float? {
        let isPercent = text.hasSuffix("%")
        guard let value = Float(isPercent ? String(text.dropLast()) : text), value.isFinite else { return nil }
        return isPercent ? value / 100 : value
    }
}
