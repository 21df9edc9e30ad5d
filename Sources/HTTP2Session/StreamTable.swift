// SPDX-License-Identifier: Apache-2.0

/// Values by stream identifier.
///
/// Identifiers grow by two, so their lower bits spread them over the table without a hash function: the streams of a busy
/// connection lie side by side, each at its own place. Where a peer chooses identifiers that share a place, values that are
/// farther from theirs come first (Robin Hood hashing; P. Celis, 1986), so that no look-up passes more values than the table has.
@frozen
public struct StreamTable<Value> {
    @usableFromInline
    @frozen
    struct Entry {
        @usableFromInline
        var id: Int32
        @usableFromInline
        var value: Value?

        @inlinable
        init(id: Int32, value: Value?) {
            self.id = id
            self.value = value
        }
    }

    /// At least twice as many places as values.
    @usableFromInline
    var places: [Entry]
    @usableFromInline
    var counted = 0

    /// How many values there are.
    @inlinable
    public var count: Int { self.counted }

    /// Creates an empty table.
    @inlinable
    public init() {
        self.places = Array(repeating: Entry(id: 0, value: nil), count: 16)
    }

    /// Whether there is no value.
    @inlinable
    public var isEmpty: Bool { self.count == 0 }

    /// All values, in no order.
    @inlinable
    public var values: [Value] { self.places.compactMap(\.value) }

    /// The value of a stream; nil removes it.
    @inlinable
    public subscript(_ id: Int32) -> Value? {
        get {
            guard let place = self.place(of: id) else { return nil }
            return self.places[place].value
        }
        set {
            if let newValue { self.insert(newValue, for: id) } else { self.removeValue(forKey: id) }
        }
    }

    /// Removes a stream's value.
    ///
    /// - Parameter id: The stream.
    /// - Returns: The value; nil if there was none.
    @inlinable
    @discardableResult
    public mutating func removeValue(forKey id: Int32) -> Value? {
        guard var hole = self.place(of: id) else { return nil }
        let removed = self.places[hole].value
        self.counted -= 1
        // Values behind it that are not at their own places move back.
        let mask = self.places.count - 1
        var next = (hole + 1) & mask
        while self.places[next].value != nil, self.home(of: self.places[next].id) != next {
            self.places.swapAt(hole, next)
            hole = next
            next = (next + 1) & mask
        }
        self.places[hole] = Entry(id: 0, value: nil)
        return removed
    }

    @inlinable
    mutating func insert(_ value: Value, for id: Int32) {
        if let place = self.place(of: id) {
            self.places[place].value = value
            return
        }
        if 2 * (self.count + 1) > self.places.count { self.grow() }
        self.put(Entry(id: id, value: value))
        self.counted += 1
    }

    @inlinable
    mutating func put(_ entry: Entry) {
        let mask = self.places.count - 1
        var entry = entry
        var place = self.home(of: entry.id)
        var distance = 0
        while self.places[place].value != nil {
            let other = (place - self.home(of: self.places[place].id)) & mask
            if other < distance {
                swap(&entry, &self.places[place])
                distance = other
            }
            place = (place + 1) & mask
            distance += 1
        }
        self.places[place] = entry
    }

    @inlinable
    mutating func grow() {
        let old = self.places
        self.places = Array(repeating: Entry(id: 0, value: nil), count: 2 * old.count)
        for entry in old where entry.value != nil { self.put(entry) }
    }

    @inlinable
    func home(of id: Int32) -> Int { Int(id >> 1) & (self.places.count - 1) }

    @inlinable
    func place(of id: Int32) -> Int? {
        let mask = self.places.count - 1
        var place = self.home(of: id)
        var distance = 0
        while self.places[place].value != nil {
            let other = self.places[place].id
            if other == id { return place }
            // A value that is nearer to its place than this one would be ends the search.
            if (place - self.home(of: other)) & mask < distance { return nil }
            place = (place + 1) & mask
            distance += 1
        }
        return nil
    }

    /// What must hold after every change.
    ///
    /// - Returns: The first rule that does not hold; nil if all do.
    public func checkInvariants() -> String? {
        let ids = self.places.filter { $0.value != nil }.map(\.id)
        if ids.count != self.count { return "\(ids.count) values are kept, but \(self.count) are counted" }
        if 2 * self.count > self.places.count { return "\(self.count) values are in \(self.places.count) places" }
        return ids.first { self.place(of: $0) == nil }.map { "stream \($0) is not found" }
    }
}
