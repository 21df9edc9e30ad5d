// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import SwitchyardTypes

/// A float64 tensor as float32, converted when its bytes are first used.
///
/// Rounds to nearest, ties to even, as torch's `.to(torch.float32)` does.
final class NarrowedStorage: TensorStorage {
    private let source: StoredTensor
    private let lock = NSLock()
    // Safety: read and written under `lock`.
    nonisolated(unsafe) private var copy: CopiedStorage?

    /// Prepares a conversion.
    ///
    /// - Parameter source: A float64 tensor.
    init(_ source: StoredTensor) {
        self.source = source
    }

    var bytes: UnsafeRawBufferPointer {
        self.lock.withLock {
            if let copy { return copy.bytes }
            let converted = self.source.view()
                .withUnsafeBytes { doubles in
                    CopiedStorage(byteCount: doubles.count / 2) { floats in
                        for index in 0..<doubles.count / 8 {
                            let bits = doubles.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self)
                            let value = Float(Double(bitPattern: UInt64(littleEndian: bits)))
                            floats.storeBytes(
                                of: value.bitPattern.littleEndian,
                                toByteOffset: 4 * index,
                                as: UInt32.self
                            )
                        }
                    }
                }
            self.copy = converted
            return converted.bytes
        }
    }
}

extension StoredTensor {
    /// The tensor as weights are used: float64 as float32, everything else as it is.
    var narrowed: StoredTensor {
        guard self.dtype == .float64, let count = TensorView.byteCount(shape: self.shape, dtype: .float32) else {
            return self
        }
        return StoredTensor(
            name: self.name,
            dtype: .float32,
            shape: self.shape,
            storage: NarrowedStorage(self),
            range: 0..<count,
            strides: nil,
            file: self.file
        )
    }
}

extension StoredTensor {
    /// Whether another tensor holds the same numbers, perhaps in another type; all elements are compared.
    ///
    /// - Parameter other: The other tensor.
    /// - Returns: False where the shapes differ, too.
    func hasValues(of other: StoredTensor) -> Bool {
        guard self.shape == other.shape else { return false }
        // torch.save repeats a tensor's name, not its bytes.
        if self.storage === other.storage, self.range == other.range, self.dtype == other.dtype,
            self.strides == other.strides, self.update === other.update
        {
            return true
        }
        let count = self.shape.reduce(1, *)
        let (left, right) = (self.narrowed, other.narrowed)
        return left.view()
            .withUnsafeBytes { leftBytes in
                right.view()
                    .withUnsafeBytes { rightBytes in
                        if left.dtype == right.dtype, leftBytes.elementsEqualInMemory(rightBytes) { return true }
                        return (0..<count)
                            .allSatisfy { left.dtype.float(leftBytes, $0) == right.dtype.float(rightBytes, $0) }
                    }
            }
    }
}

extension UnsafeRawBufferPointer {
    /// Whether both have the same bytes, compared at the speed of memory.
    fileprivate func elementsEqualInMemory(_ other: UnsafeRawBufferPointer) -> Bool {
        guard self.count == other.count else { return false }
        guard let left = self.baseAddress, let right = other.baseAddress else { return true }
        return memcmp(left, right, self.count) == 0
    }
}
