// SPDX-License-Identifier: Apache-2.0

/// A list that keeps its first element in place: where most lists have one element, most take no memory of their own.
@frozen
public struct ShortList<Element>: RandomAccessCollection, MutableCollection {
    @usableFromInline
    var head: Element?
    /// The elements after the first; empty while there is none.
    @usableFromInline
    var rest: [Element]

    /// Creates an empty list.
    @inlinable
    public init() {
        self.head = nil
        self.rest = []
    }

    /// Creates a list of one element.
    ///
    /// - Parameter element: The element.
    @inlinable
    public init(_ element: Element) {
        self.head = element
        self.rest = []
    }

    /// Creates a list of some elements.
    ///
    /// - Parameter elements: The elements, in their order.
    @inlinable
    public init(contentsOf elements: some Collection<Element>) {
        self.head = elements.first
        self.rest = elements.count > 1 ? Array(elements.dropFirst()) : []
    }

    /// The index of the first element: 0.
    @inlinable
    public var startIndex: Int { 0 }

    /// How many elements there are.
    @inlinable
    public var endIndex: Int { self.head == nil ? 0 : 1 + self.rest.count }

    /// The element at an index, which must be one of the list's.
    @inlinable
    public subscript(_ index: Int) -> Element {
        get {
            if index == 0, let head = self.head { return head }
            return self.rest[index - 1]
        }
        set {
            if index == 0, self.head != nil { self.head = newValue } else { self.rest[index - 1] = newValue }
        }
    }

    /// Adds an element at the end.
    ///
    /// - Parameter element: The element.
    @inlinable
    public mutating func append(_ element: Element) {
        if self.head == nil { self.head = element } else { self.rest.append(element) }
    }

    /// Removes an element; those after it move forward.
    ///
    /// - Parameter index: Its index, which must be one of the list's.
    /// - Returns: The element.
    @inlinable
    @discardableResult
    public mutating func remove(at index: Int) -> Element {
        guard index == 0, let first = self.head else { return self.rest.remove(at: index - 1) }
        self.head = self.rest.isEmpty ? nil : self.rest.removeFirst()
        return first
    }

    /// Removes all elements; the memory of those after the first is kept.
    @inlinable
    public mutating func removeAll() {
        self.head = nil
        if !self.rest.isEmpty { self.rest.removeAll(keepingCapacity: true) }
    }
}

extension ShortList: ExpressibleByArrayLiteral {
    /// Creates a list of some elements.
    @inlinable
    public init(arrayLiteral elements: Element...) { self.init(contentsOf: elements) }
}

extension ShortList: Sendable where Element: Sendable {}
extension ShortList: Equatable where Element: Equatable {}
extension ShortList: Hashable where Element: Hashable {}
