// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import RPCCore

@Suite struct TimeoutTests {
    @Test(arguments: [
        ("1H", Duration.seconds(3600)), ("2M", .seconds(120)), ("3S", .seconds(3)), ("4m", .milliseconds(4)),
        ("5u", .microseconds(5)), ("6n", .nanoseconds(6)), ("99999999H", .seconds(3600 * 99_999_999)),
        ("0S", .zero), ("00000007S", .seconds(7)),
    ])
    func `a legal value has its duration`(text: String, expected: Duration) throws {
        #expect(try Timeout(parsing: text).duration == expected)
    }

    @Test(arguments: [
        ("", TimeoutError.Code.unknownUnit), ("5", .unknownUnit), ("5s", .unknownUnit), ("5 ", .unknownUnit),
        ("S", .noDigits), ("123456789S", .tooManyDigits), ("-1S", .notADigit), ("1.5S", .notADigit),
        (" 1S", .notADigit), ("1é2S", .notADigit), ("5µ", .unknownUnit),
    ])
    func `anything else is refused by name`(text: String, code: TimeoutError.Code) {
        #expect(throws: TimeoutError(code: code, text: text)) { try Timeout(parsing: text) }
    }

    @Test(arguments: [
        (Duration.nanoseconds(1), "1n"), (.nanoseconds(99_999_999), "99999999n"),
        (.nanoseconds(100_000_000), "100000u"), (.nanoseconds(100_000_001), "100001u"),
        (.milliseconds(250), "250000u"), (.seconds(30), "30000000u"), (.seconds(100), "100000m"),
        (.seconds(100) + .nanoseconds(1), "100001m"), (.seconds(100_000), "100000S"),
        (.seconds(99_999_999), "99999999S"), (.seconds(100_000_000), "1666667M"),
        (.seconds(60 * 100_000_000), "1666667H"), (.seconds(3600 * 100_000_000), "99999999H"),
        (.zero, "1n"), (.seconds(-5), "1n"), (Duration(secondsComponent: 0, attosecondsComponent: 1), "1n"),
    ])
    func `a duration is rounded up in the finest unit that fits`(duration: Duration, text: String) {
        #expect(Timeout(covering: duration).description == text)
    }

    @Test func `what is written covers the duration by less than one unit and reads back`() throws {
        var generator = SplitMix(seed: 7)
        for _ in 0..<2000 {
            let seconds = Int64(generator.next() >> UInt64.random(in: 24...63, using: &generator))
            let rest = Int64.random(in: 0..<1_000_000_000_000_000_000, using: &generator)
            let duration = Duration(secondsComponent: seconds, attosecondsComponent: rest)
            let timeout = Timeout(covering: duration)
            if seconds < 9_000_000_000 {
                let nanoseconds = seconds * 1_000_000_000 + rest / 1_000_000_000
                #expect(Timeout(coveringNanoseconds: nanoseconds) == Timeout(covering: .nanoseconds(nanoseconds)))
            }
            #expect(try Timeout(parsing: timeout.description) == timeout)
            if timeout.description != "99999999H" {
                #expect(timeout.duration >= duration)
                #expect(timeout.duration - duration < timeout.unit.duration)
            }
        }
    }

    @Test func `a deadline beyond the horizon is none`() throws {
        let now = ContinuousClock.now
        #expect(try Timeout(parsing: "5S").deadline(from: now) == now.advanced(by: .seconds(5)))
        #expect(try Timeout(parsing: "99999999H").deadline(from: now) == nil)
        #expect(try Timeout(parsing: "99999999H").nanoseconds == nil)
        for unit in ["n", "u", "m", "S", "M"] {
            let timeout = try Timeout(parsing: "1234567\(unit)")
            let nanoseconds = try #require(timeout.nanoseconds)
            #expect(Duration.nanoseconds(nanoseconds) == timeout.duration)
        }
    }
}

/// A generator with a seed (SplitMix64), so that a failure comes again.
struct SplitMix: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { self.state = seed }

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
