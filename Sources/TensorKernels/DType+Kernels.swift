// SPDX-License-Identifier: Apache-2.0

internal import CKernels
public import SwitchyardTypes

extension DType {
    /// The kernels' name for the type, where elements are read individually: float32, bfloat16 or float16.
    ///
    /// Nothing else gets this far: loaders and codecs already check ``isWeight`` and ``isRow``.
    var kernelCode: Int32 {
        switch self {
        case .float32: Int32(CK_TYPE_F32)
        case .float16: Int32(CK_TYPE_F16)
        default: Int32(CK_TYPE_BF16)
        }
    }

    /// The most inputs of a matrix packed in this type: for `int8`, as many as fit in 32-bit sums.
    public var mostInputs: Int {
        self == .int8 ? Int(CK_INT8_MOST_INPUTS) : Int.max
    }

    /// Writes `count` floats as rows of this type, which is float32 or bfloat16 (``isRow``).
    ///
    /// - Parameters:
    ///   - source: The first element. For ``bfloat16``, which rounds to nearest even, numbers beyond the largest
    ///     bfloat16 become infinite.
    ///   - count: Number of elements.
    ///   - destination: Room for `count * byteCount` bytes; need not be aligned.
    public func write(_ source: UnsafePointer<Float>, count: Int, to destination: UnsafeMutableRawPointer) {
        if self == .float32 {
            destination.copyMemory(from: source, byteCount: count * MemoryLayout<Float>.stride)
        } else {
            ck_round_bf16(source, count, destination)
        }
    }

    /// Reads `count` elements of this type, a weight's (``isWeight``) or a row's, all of which widen exactly.
    ///
    /// - Parameters:
    ///   - source: The first element; need not be aligned.
    ///   - count: Number of elements.
    ///   - destination: Room for `count` floats.
    public func read(_ source: UnsafeRawPointer, count: Int, into destination: UnsafeMutablePointer<Float>) {
        ck_widen(source, self.kernelCode, count, destination)
    }
}
