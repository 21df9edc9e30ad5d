// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// When something that failed is retried.
public struct RetryPolicy: Sendable, Hashable {
    /// Attempts in a row without bytes before giving up; one that brings bytes resets the count.
    public var attempts = 8
    /// The wait after the first failure; it doubles with every further one.
    public var firstWait = Duration.milliseconds(250)
    /// The longest wait between two attempts.
    public var longestWait = Duration.seconds(30)
    /// The longest wait that a server may ask for; a server that asks for more is not retried.
    public var longestAskedWait = Duration.seconds(300)

    /// The policy of all commands.
    public static let defaults = RetryPolicy()

    /// How long to wait after a failure: the exponential wait, half of it random.
    ///
    /// - Parameters:
    ///   - failures: Failures in a row, 1 or more.
    ///   - draw: A random number, at least 0 and below 1.
    /// - Returns: The wait.
    func wait(after failures: Int, draw: Double) -> Duration {
        let factor = Double(1 << min(20, max(0, failures - 1)))
        let whole = min(self.firstWait * factor, self.longestWait)
        return whole * (0.5 + draw / 2)
    }

    /// The wait that a `Retry-After` header asks for.
    ///
    /// RFC 9110, section 10.2.3: seconds, or a date, of which the preferred form of section 5.6.7 is read.
    ///
    /// - Parameters:
    ///   - text: The header's value.
    ///   - now: The present.
    /// - Returns: The wait, never negative; nil for a text that is neither.
    static func askedWait(_ text: String, now: Date) -> Duration? {
        let text = text.trimmingCharacters(in: .whitespaces)
        if !text.isEmpty, text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }) {
            return .seconds(Int(text) ?? Int(Int32.max))
        }
        let format = DateFormatter()
        format.locale = Locale(identifier: "en_US_POSIX")
        format.timeZone = TimeZone(identifier: "GMT")
        format.dateFormat = "EEE, dd MMM yyyy HH:mm:ss 'GMT'"
        guard let date = format.date(from: text) else { return nil }
        return .seconds(min(max(0, date.timeIntervalSince(now)), 1e9))
    }
}
