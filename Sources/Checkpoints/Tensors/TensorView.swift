// SPDX-License-Identifier: Apache-2.0

/// Read-only memory that tensors are cut from: a mapped file, or a copy made because a tensor's rows were not contiguous.
protocol TensorStorage: AnyObject, Sendable {
    /// The memory, valid as long as the object lives.
    var bytes: UnsafeRawBufferPointer { get }
}

/// One tensor of a checkpoint, not copied: row-major, contiguous, little-endian elements in mapped memory.
///
/// A view keeps its mapping alive. The bytes may lie at any alignment. A file that is shortened by another program while it
/// is mapped stops the process (`SIGBUS`), as with every memory-mapped file: replace checkpoints by renaming, never in place.
public struct TensorView: Sendable {
    /// The name under which the file holds the tensor.
    public let name: String
    /// The type of the elements.
    public let dtype: TensorDType
    /// The extents, slowest first.
    public let shape: [Int]
    /// Offset and length of the tensor's bytes in its storage.
    let range: Range<Int>
    let storage: any TensorStorage

    init(name: String, dtype: TensorDType, shape: [Int], storage: any TensorStorage, range: Range<Int>) {
        precondition(range.lowerBound >= 0 && range.upperBound <= storage.bytes.count)
        self.name = name
        self.dtype = dtype
        self.shape = shape
        self.storage = storage
        self.range = range
    }

    /// The number of elements.
    public var elementCount: Int { self.range.count / self.dtype.byteSize }

    /// The number of bytes.
    public var byteCount: Int { self.range.count }

    /// Calls a closure with the tensor's bytes, which are valid only until it returns.
    ///
    /// - Parameter body: Receives `byteCount` bytes, row-major, possibly unaligned.
    /// - Returns: What the closure returns.
    /// - Throws: What the closure throws.
    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try withExtendedLifetime(self.storage) {
            try body(UnsafeRawBufferPointer(rebasing: self.storage.bytes[self.range]))
        }
    }
}
