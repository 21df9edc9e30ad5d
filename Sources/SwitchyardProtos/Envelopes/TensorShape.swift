// SPDX-License-Identifier: Apache-2.0

/// The lengths of a tensor's axes, the slowest first, in place: a message of rows needs no list for its two axes.
public struct TensorShape: Sendable, Hashable, RandomAccessCollection, MutableCollection {
    /// The most axes that a tensor may have.
    public static let maxAxes = 8

    private var axes = SIMD8<UInt32>.zero
    /// How many axes there are.
    public private(set) var count = 0

    /// Creates the shape of no tensor: one without axes.
    public init() {}

    /// Creates the shape of a matrix.
    ///
    /// - Parameters:
    ///   - rows: Its rows, below 2^32.
    ///   - columns: Its columns, below 2^32.
    public init(rows: Int, columns: Int) {
        self.axes[0] = UInt32(rows)
        self.axes[1] = UInt32(columns)
        self.count = 2
    }

    /// Creates a shape.
    ///
    /// - Parameter axes: The lengths of its axes, of which there are at most ``maxAxes``.
    public init(_ axes: some Sequence<UInt32>) {
        for axis in axes {
            let isAdded = self.append(axis)
            precondition(isAdded, "a shape has at most \(Self.maxAxes) axes")
        }
    }

    /// The index of the first axis: 0.
    public var startIndex: Int { 0 }

    /// The number of axes.
    public var endIndex: Int { self.count }

    /// The length of an axis.
    public subscript(_ index: Int) -> UInt32 {
        get {
            precondition(self.indices.contains(index), "the shape \(self) has no axis \(index)")
            return self.axes[index]
        }
        set {
            precondition(self.indices.contains(index), "the shape \(self) has no axis \(index)")
            self.axes[index] = newValue
        }
    }

    /// Adds an axis.
    ///
    /// - Parameter axis: Its length.
    /// - Returns: Whether there was room for it.
    mutating func append(_ axis: UInt32) -> Bool {
        guard self.count < Self.maxAxes else { return false }
        self.axes[self.count] = axis
        self.count += 1
        return true
    }
}

extension TensorShape: ExpressibleByArrayLiteral {
    /// Creates a shape from the lengths of its axes.
    public init(arrayLiteral elements: UInt32...) { self.init(elements) }
}

extension TensorShape: CustomStringConvertible {
    /// The lengths as a list, such as `[3, 768]`.
    public var description: String { "\(Array(self))" }
}
