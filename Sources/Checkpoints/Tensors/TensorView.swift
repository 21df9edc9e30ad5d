// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes

/// Read-only memory that tensors are cut from: a mapped file, or a copy.
protocol TensorStorage: AnyObject, Sendable {
    /// The memory, valid as long as the object lives.
    var bytes: UnsafeRawBufferPointer { get }
}

/// Our own memory, for tensors that no file holds in reading order.
final class CopiedStorage: TensorStorage {
    // Safety: written in `init` only, freed in `deinit`; readers hold a reference to `self`.
    nonisolated(unsafe) let bytes: UnsafeRawBufferPointer

    /// - Parameters:
    ///   - byteCount: How much memory to allocate.
    ///   - fill: Writes all of it.
    init(byteCount: Int, fill: (UnsafeMutableRawBufferPointer) -> Void) {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 64)
        fill(memory)
        self.bytes = UnsafeRawBufferPointer(memory)
    }

    deinit { self.bytes.deallocate() }
}

/// A caller's memory, which lives as long as its owner.
private final class LentStorage: TensorStorage {
    // Safety: the owner says that the bytes stay in place and unchanged while it is referred to; `self` refers to it.
    nonisolated(unsafe) let bytes: UnsafeRawBufferPointer
    private let owner: any AnyObject & Sendable

    init(bytes: UnsafeRawBufferPointer, owner: any AnyObject & Sendable) {
        self.bytes = bytes
        self.owner = owner
    }
}

/// One tensor: row-major, contiguous, little-endian elements, usually mapped rather than copied.
///
/// A view keeps its memory alive. The bytes may have any alignment. A file that another program truncates while it is
/// mapped ends the process (`SIGBUS`), as with every mapped file: replace checkpoints by renaming, never in place. Services
/// watch their files with ``WeightWatch``.
public struct TensorView: Sendable {
    /// The name under which the file holds the tensor.
    public let name: String
    /// The type of the elements.
    public let dtype: DType
    /// The extents, slowest first.
    public let shape: [Int]
    /// Where the tensor's bytes lie in its storage.
    let range: Range<Int>
    let storage: any TensorStorage

    init(name: String, dtype: DType, shape: [Int], storage: any TensorStorage, range: Range<Int>) {
        precondition(range.lowerBound >= 0 && range.upperBound <= storage.bytes.count)
        self.name = name
        self.dtype = dtype
        self.shape = shape
        self.storage = storage
        self.range = range
    }

    /// Makes a tensor of bytes that the caller has, for writing files.
    ///
    /// - Parameters:
    ///   - name: The tensor's name.
    ///   - dtype: The type of the elements.
    ///   - shape: The extents, slowest first.
    ///   - bytes: The elements, row-major, little-endian.
    /// - Throws: `wrongShape` if the number of bytes does not match shape and type.
    public init(name: String, dtype: DType, shape: [Int], bytes: [UInt8]) throws(CheckpointError) {
        guard let needed = Self.byteCount(shape: shape, dtype: dtype), needed == bytes.count else {
            throw CheckpointError(
                code: .wrongShape,
                message:
                    "\(bytes.count) bytes cannot be \(dtype.safetensorsName) of shape \(shape); pass the tensor's exact bytes",
                tensor: name
            )
        }
        let storage = CopiedStorage(byteCount: needed) { $0.copyBytes(from: bytes) }
        self.init(name: name, dtype: dtype, shape: shape, storage: storage, range: 0..<needed)
    }

    /// Makes a tensor of memory that stays with its owner, for writing files without a copy.
    ///
    /// - Parameters:
    ///   - name: The tensor's name.
    ///   - dtype: The type of the elements.
    ///   - shape: The extents, slowest first.
    ///   - bytes: The elements, row-major, little-endian, which do not change while the view or a copy of it lives.
    ///   - owner: Keeps the bytes in place for as long as it lives.
    /// - Throws: `wrongShape` if the number of bytes does not match shape and type.
    public init(
        name: String,
        dtype: DType,
        shape: [Int],
        lending bytes: UnsafeRawBufferPointer,
        of owner: any AnyObject & Sendable
    ) throws(CheckpointError) {
        guard let needed = Self.byteCount(shape: shape, dtype: dtype), needed == bytes.count else {
            throw CheckpointError(
                code: .wrongShape,
                message:
                    "\(bytes.count) bytes cannot be \(dtype.safetensorsName) of shape \(shape); pass the tensor's exact bytes",
                tensor: name
            )
        }
        let storage = LentStorage(bytes: bytes, owner: owner)
        self.init(name: name, dtype: dtype, shape: shape, storage: storage, range: 0..<needed)
    }

    /// The number of elements.
    public var elementCount: Int { self.range.count / self.dtype.byteCount }

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

    /// The bytes that a contiguous tensor takes; `nil` for a negative extent or a product beyond 63 bits.
    static func byteCount(shape: [Int], dtype: DType) -> Int? {
        var count = dtype.byteCount
        // Zeros first: an empty tensor is valid however large its other extents are.
        if shape.contains(where: { $0 < 0 }) { return nil }
        if shape.contains(0) { return 0 }
        for extent in shape {
            let (product, overflow) = count.multipliedReportingOverflow(by: extent)
            if overflow { return nil }
            count = product
        }
        return count
    }
}
