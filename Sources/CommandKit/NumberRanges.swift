// SPDX-License-Identifier: Apache-2.0

/// Lists of numbers for people.
package enum NumberRanges {
    /// `0-3, 6` for 0, 1, 2, 3, 6.
    ///
    /// - Parameter numbers: The numbers, in any order.
    /// - Returns: The list, ascending, with runs of neighbours as one range.
    package static func text(_ numbers: [UInt32]) -> String {
        var parts: [String] = []
        var index = 0
        let sorted = numbers.sorted()
        while index < sorted.count {
            var end = index
            while end + 1 < sorted.count, sorted[end + 1] == sorted[end] + 1 { end += 1 }
            parts.append(end == index ? "\(sorted[index])" : "\(sorted[index])-\(sorted[end])")
            index = end + 1
        }
        return parts.joined(separator: ", ")
    }
}
