// SPDX-License-Identifier: Apache-2.0

/// The value of `grpc-timeout`: at most eight digits and a unit.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/PROTOCOL-HTTP2.md (Timeout, TimeoutValue, TimeoutUnit).
public struct Timeout: Sendable, Hashable, CustomStringConvertible {
    /// The unit that follows the digits; the raw value is its letter.
    public enum Unit: UInt8, Sendable, Hashable, CaseIterable {
        /// Nanoseconds, `n`.
        case nanoseconds = 0x6E
        /// Microseconds, `u`.
        case microseconds = 0x75
        /// Milliseconds, `m`.
        case milliseconds = 0x6D
        /// Seconds, `S`.
        case seconds = 0x53
        /// Minutes, `M`.
        case minutes = 0x4D
        /// Hours, `H`.
        case hours = 0x48

        /// The length of one unit.
        public var duration: Duration {
            switch self {
            case .nanoseconds: .nanoseconds(1)
            case .microseconds: .microseconds(1)
            case .milliseconds: .milliseconds(1)
            case .seconds: .seconds(1)
            case .minutes: .seconds(60)
            case .hours: .seconds(3600)
            }
        }
    }

    /// The largest number that eight digits can write.
    package static let maximumValue: UInt32 = 99_999_999

    /// The latest point in time that counts as a deadline; anything later means none.
    ///
    /// A hundred years keeps the deadline inside 64 bits of nanoseconds, which event loops count in.
    package static let horizon = Duration.seconds(100 * 365 * 24 * 3600)

    /// The number of units, at most ``maximumValue``.
    public let value: UInt32

    /// The unit that ``value`` counts.
    public let unit: Unit

    private init(value: UInt32, unit: Unit) {
        self.value = value
        self.unit = unit
    }

    /// Creates the timeout that covers a duration: rounded up, in the finest unit whose number fits.
    ///
    /// - Parameter duration: The time left. Zero and less become one nanosecond, since the protocol knows no zero;
    ///   more than 99,999,999 hours become that.
    public init(covering duration: Duration) {
        guard duration > .zero else {
            self.value = 1
            self.unit = .nanoseconds
            return
        }
        for unit in Unit.allCases {
            let limit = unit.duration * Int(Self.maximumValue)
            if duration <= limit {
                self.value = Self.roundedUp(duration, unit: unit)
                self.unit = unit
                return
            }
        }
        self.value = Self.maximumValue
        self.unit = .hours
    }

    /// Creates the timeout that covers a number of nanoseconds; otherwise like ``init(covering:)``.
    ///
    /// - Parameter nanoseconds: The time left.
    public init(coveringNanoseconds nanoseconds: Int64) {
        // Nearly every call's timeout is between a microsecond and a day, where plain numbers do.
        let limit = Int64(Self.maximumValue)
        let left = max(1, nanoseconds)
        if left <= limit {
            self.init(value: UInt32(left), unit: .nanoseconds)
        } else if left <= limit * 1_000 {
            self.init(value: UInt32((left - 1) / 1_000 + 1), unit: .microseconds)
        } else if left <= limit * 1_000_000 {
            self.init(value: UInt32((left - 1) / 1_000_000 + 1), unit: .milliseconds)
        } else {
            self.init(covering: .nanoseconds(left))
        }
    }

    /// Reads a header's value.
    ///
    /// - Parameter text: One to eight digits and a unit.
    /// - Throws: ``TimeoutError`` if the text is anything else.
    public init(parsing text: String) throws(TimeoutError) {
        let bytes = text.utf8
        guard let last = bytes.last, let unit = Unit(rawValue: last) else {
            throw TimeoutError(code: .unknownUnit, text: text)
        }
        let digits = bytes.dropLast()
        guard !digits.isEmpty else {
            throw TimeoutError(code: .noDigits, text: text)
        }
        guard digits.count <= 8 else {
            throw TimeoutError(code: .tooManyDigits, text: text)
        }
        var value: UInt32 = 0
        for digit in digits {
            guard digit >= UInt8(ascii: "0"), digit <= UInt8(ascii: "9") else {
                throw TimeoutError(code: .notADigit, text: text)
            }
            value = value * 10 + UInt32(digit - UInt8(ascii: "0"))
        }
        self.value = value
        self.unit = unit
    }

    /// The time that the value stands for.
    public var duration: Duration { self.unit.duration * Int(self.value) }

    /// The time that the value stands for in nanoseconds; nil where that is farther away than ``horizon``.
    public var nanoseconds: Int64? {
        let scale: Int64 =
            switch self.unit {
            case .nanoseconds: 1
            case .microseconds: 1_000
            case .milliseconds: 1_000_000
            case .seconds: 1_000_000_000
            case .minutes: 60_000_000_000
            case .hours: 3_600_000_000_000
            }
        let (product, overflow) = Int64(self.value).multipliedReportingOverflow(by: scale)
        return overflow || product > Self.horizonNanoseconds ? nil : product
    }

    /// ``horizon`` in nanoseconds.
    public static let horizonNanoseconds: Int64 = 100 * 365 * 24 * 3600 * 1_000_000_000

    /// The point in time at which the timeout runs out.
    ///
    /// - Parameter now: When the request arrived.
    /// - Returns: Nil where that is farther away than ``horizon``.
    public func deadline(from now: ContinuousClock.Instant) -> ContinuousClock.Instant? {
        let duration = self.duration
        return duration > Self.horizon ? nil : now.advanced(by: duration)
    }

    /// The header's value, for example `250m`.
    public var description: String {
        String(unsafeUninitializedCapacity: 9) { bytes in
            // Sent with every call, so written from the back without string interpolation.
            var start = 8
            bytes[start] = self.unit.rawValue
            var rest = self.value
            repeat {
                start -= 1
                bytes[start] = UInt8(ascii: "0") + UInt8(rest % 10)
                rest /= 10
            } while rest > 0 && start > 0
            for index in start...8 { bytes[index - start] = bytes[index] }
            return 9 - start
        }
    }

    /// The smallest number of units that covers the duration; it must fit.
    private static func roundedUp(_ duration: Duration, unit: Unit) -> UInt32 {
        let attosecondsPerSecond: Int64 = 1_000_000_000_000_000_000
        let (seconds, attoseconds) = duration.components
        let unitParts = unit.duration.components
        let exact: Int64
        let rest: Int64
        if unitParts.seconds > 0 {
            exact = seconds / unitParts.seconds
            rest = seconds % unitParts.seconds + (attoseconds > 0 ? 1 : 0)
        } else {
            // A unit below a second divides it, and the number fits, so the product stays below eight digits.
            exact = seconds * (attosecondsPerSecond / unitParts.attoseconds) + attoseconds / unitParts.attoseconds
            rest = attoseconds % unitParts.attoseconds
        }
        return UInt32(exact + (rest > 0 ? 1 : 0))
    }
}

/// A `grpc-timeout` that cannot be read.
public struct TimeoutError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What is wrong with the value.
    public enum Code: Sendable, Hashable {
        /// The last character is none of `H M S m u n`.
        case unknownUnit
        /// There is a unit with nothing before it.
        case noDigits
        /// There are more than eight digits.
        case tooManyDigits
        /// A character before the unit is not a digit.
        case notADigit
    }

    /// What is wrong with the value.
    public let code: Code

    /// The value as received.
    public let text: String

    /// Says what is wrong and how to fix it.
    public var description: String {
        let fault =
            switch self.code {
            case .unknownUnit: "does not end in a unit"
            case .noDigits: "has no digits"
            case .tooManyDigits: "has more than eight digits"
            case .notADigit: "has a character that is not a digit"
            }
        return "grpc-timeout \"\(self.text.prefix(32))\" \(fault); send 1 to 8 digits and one of H, M, S, m, u, n"
    }
}
