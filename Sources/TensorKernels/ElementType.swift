// SPDX-License-Identifier: Apache-2.0

internal import CKernels

/// An element type of tensors in memory that the kernels read.
public enum ElementType: Sendable, Hashable, CaseIterable {
    /// IEEE 754 binary32.
    case float32

    /// The upper half of a binary32.
    case bfloat16

    /// IEEE 754 binary16.
    case float16

    /// Bytes of one element.
    public var byteCount: Int {
        self == .float32 ? 4 : 2
    }

    var code: Int32 {
        switch self {
        case .float32: Int32(CK_TYPE_F32)
        case .bfloat16: Int32(CK_TYPE_BF16)
        case .float16: Int32(CK_TYPE_F16)
        }
    }

    /// Writes `count` elements as float32, which every element type widens to exactly.
    ///
    /// - Parameters:
    ///   - source: The first element; need not be aligned.
    ///   - count: Number of elements.
    ///   - destination: Room for `count` floats.
    public func widen(_ source: UnsafeRawPointer, count: Int, into destination: UnsafeMutablePointer<Float>) {
        ck_widen(source, self.code, count, destination)
    }
}
