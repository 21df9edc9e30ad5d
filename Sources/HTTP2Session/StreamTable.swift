// SPDX-License-Identifier: Apache-2.0

/// Values by stream identifier.
///
/// Identifiers grow by two, so their lower bits spread them over the table without a hash function; neighbours are probed.
/// A peer chooses identifiers, but they only grow, and the table has twice as many places as values: at worst a look-up
/// probes the values that are there.
package struct StreamTable<Value> {
    @usableFromInline
    var places: [(id: Int32, value: Value?)]
    /// How many values there are.
    package private(set) var count = 0

    /// Creates an empty table.
    package init() {
        self.places = Array(repeating: (0, nil), count: 16)
    }

    /// Whether there is no value.
    package var isEmpty: Bool { self.count == 0 }

    /// All values, in no order.
    package var values: [Value] { self.places.compactMap(\.value) }

    /// The value of a stream; nil removes it.
    package subscript(_ id: Int32) -> Value? {
        get {
            guard let place = self.place(of: id) else { return nil }
            return self.places[place].value
        }
        set {
            if let newValue { self.insert(newValue, for: id) } else { _ = self.removeValue(forKey: id) }
        }
    }

    /// Removes a stream's value.
    ///
    /// - Parameter id: The stream.
    /// - Returns: The value; nil if there was none.
    @discardableResult
    package mutating func removeValue(forKey id: Int32) -> Value? {
        guard var hole = self.place(of: id) else { return nil }
        let removed = self.places[hole].value
        self.count -= 1
        // Values behind the hole that were pushed on by it move back.
        let mask = self.places.count - 1
        var next = (hole + 1) & mask
        while self.places[next].value != nil {
            let home = self.home(of: self.places[next].id)
            if (next - home) & mask >= (next - hole) & mask {
                self.places[hole] = self.places[next]
                hole = next
            }
            next = (next + 1) & mask
        }
        self.places[hole] = (0, nil)
        return removed
    }

    private mutating func insert(_ value: Value, for id: Int32) {
        if let place = self.place(of: id) {
            self.places[place].value = value
            return
        }
        if 2 * (self.count + 1) > self.places.count { self.grow() }
        self.put(value, for: id)
        self.count += 1
    }

    private mutating func put(_ value: Value, for id: Int32) {
        let mask = self.places.count - 1
        var place = self.home(of: id)
        while self.places[place].value != nil { place = (place + 1) & mask }
        self.places[place] = (id, value)
    }

    private mutating func grow() {
        let old = self.places
        self.places = Array(repeating: (0, nil), count: 2 * old.count)
        for (id, value) in old {
            if let value { self.put(value, for: id) }
        }
    }

    private func home(of id: Int32) -> Int { Int(id >> 1) & (self.places.count - 1) }

    private func place(of id: Int32) -> Int? {
        let mask = self.places.count - 1
        var place = self.home(of: id)
        while true {
            let entry = self.places[place]
            guard entry.value != nil else { return nil }
            if entry.id == id { return place }
            place = (place + 1) & mask
        }
    }
}
