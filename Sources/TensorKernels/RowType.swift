// SPDX-License-Identifier: Apache-2.0

internal import CKernels

/// An element type in which rows travel between a model and its experts, or are kept for later steps.
public enum RowType: Sendable, Hashable, CaseIterable {
    /// As they are computed.
    case float32

    /// Half the bytes; each element is rounded to nearest even on its way out and widened on its way in.
    case bfloat16

    /// Bytes of one element.
    public var byteCount: Int {
        self == .float32 ? 4 : 2
    }

    var code: Int32 {
        Int32(self == .float32 ? CK_TYPE_F32 : CK_TYPE_BF16)
    }

    /// Writes `count` elements of this type.
    ///
    /// - Parameters:
    ///   - source: The first element. For ``bfloat16``, one beyond the largest bfloat16 becomes infinite.
    ///   - count: Number of elements.
    ///   - destination: Room for `count * byteCount` bytes; need not be aligned.
    public func write(_ source: UnsafePointer<Float>, count: Int, to destination: UnsafeMutableRawPointer) {
        switch self {
        case .float32: destination.copyMemory(from: source, byteCount: count * MemoryLayout<Float>.stride)
        case .bfloat16: ck_round_bf16(source, count, destination)
        }
    }

    /// Reads `count` elements of this type, which widen exactly.
    ///
    /// - Parameters:
    ///   - source: The first element; need not be aligned.
    ///   - count: Number of elements.
    ///   - destination: Room for `count` floats.
    public func read(_ source: UnsafeRawPointer, count: Int, into destination: UnsafeMutablePointer<Float>) {
        ck_widen(source, self.code, count, destination)
    }
}
