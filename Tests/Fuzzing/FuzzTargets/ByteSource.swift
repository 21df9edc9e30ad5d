// SPDX-License-Identifier: Apache-2.0

/// Turns the bytes of an input into choices, one after another; at the end it gives zeros.
struct ByteSource {
    private let bytes: [UInt8]
    private(set) var position = 0

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// Whether all bytes are used.
    var isAtEnd: Bool { self.position >= self.bytes.count }

    /// One byte.
    mutating func byte() -> UInt8 {
        guard self.position < self.bytes.count else { return 0 }
        defer { self.position += 1 }
        return self.bytes[self.position]
    }

    /// A number from 0 up to a limit, which is left out; limits up to 256 take one byte.
    mutating func number(below limit: Int) -> Int {
        var value = Int(self.byte())
        if limit > 256 { value = value << 8 | Int(self.byte()) }
        if limit > 65_536 { value = value << 16 | Int(self.byte()) << 8 | Int(self.byte()) }
        return value % max(1, limit)
    }

    /// Eight bytes as one number.
    mutating func word() -> UInt64 {
        var value: UInt64 = 0
        for _ in 0..<8 { value = value << 8 | UInt64(self.byte()) }
        return value
    }

    /// One of the elements.
    mutating func choice<Element>(_ elements: [Element], default fallback: Element) -> Element {
        guard !elements.isEmpty else { return fallback }
        return elements[self.number(below: elements.count)]
    }

    /// At most `count` bytes.
    mutating func take(_ count: Int) -> [UInt8] {
        let end = min(self.bytes.count, self.position + max(0, count))
        defer { self.position = end }
        return Array(self.bytes[min(self.position, end)..<end])
    }

    /// A byte that says how many, and that many bytes.
    mutating func piece() -> [UInt8] {
        self.take(Int(self.byte()))
    }

    /// All that is left.
    mutating func rest() -> [UInt8] {
        self.take(self.bytes.count - self.position)
    }
}

/// A small generator with a seed: the same seed gives the same numbers everywhere.
///
/// Source: https://prng.di.unimi.it/splitmix64.c
public struct SplitMix64: RandomNumberGenerator, Sendable {
    private var state: UInt64

    /// Creates the generator.
    ///
    /// - Parameter seed: Any number.
    public init(seed: UInt64) {
        self.state = seed
    }

    /// The next number.
    public mutating func next() -> UInt64 {
        self.state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = self.state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to a limit, which is left out.
    ///
    /// - Parameter limit: One more than the largest number; at least 1.
    /// - Returns: The number.
    public mutating func below(_ limit: Int) -> Int {
        Int(truncatingIfNeeded: self.next() >> 1) % max(1, limit)
    }

    /// Whether something happens that happens once in `times` times.
    ///
    /// - Parameter times: How rare it is.
    /// - Returns: Whether it happens now.
    public mutating func once(in times: Int) -> Bool {
        self.below(times) == 0
    }
}
