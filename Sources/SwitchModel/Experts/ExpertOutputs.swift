// SPDX-License-Identifier: Apache-2.0

public import SwitchyardTypes
internal import TensorKernels

/// Expert outputs for consecutive dispatched rows: float32, row after row, possibly unaligned (a network buffer).
public protocol ExpertOutputStorage: Sendable {
    /// Lends the bytes.
    ///
    /// - Parameter body: Reads the bytes, which are valid during the call only.
    func withUnsafeBytes(_ body: (UnsafeRawBufferPointer) -> Void)
}

/// What an executor returns for a layer: each row of the plan in exactly one chunk or among the dropped.
public struct ExpertOutputs: Sendable {
    /// Outputs for a range of the plan's rows.
    public struct Chunk: Sendable {
        /// Which rows of the plan.
        public var rows: Range<Int>

        /// `rows.count * d_model` float32 elements.
        public var storage: any ExpertOutputStorage

        /// Names rows and their outputs.
        ///
        /// - Parameters:
        ///   - rows: Which rows of the plan.
        ///   - storage: `rows.count * d_model` float32 elements.
        public init(rows: Range<Int>, storage: any ExpertOutputStorage) {
            self.rows = rows
            self.storage = storage
        }
    }

    /// Rows without an output.
    public struct Dropped: Sendable, Hashable {
        /// Which rows of the plan.
        public var rows: Range<Int>

        /// Why.
        public var reason: DropReason

        /// Names rows without an output.
        ///
        /// - Parameters:
        ///   - rows: Which rows of the plan.
        ///   - reason: Why.
        public init(rows: Range<Int>, reason: DropReason) {
            self.rows = rows
            self.reason = reason
        }
    }

    /// The outputs, in any order.
    public var chunks: [Chunk]

    /// The rows without an output, in any order.
    public var dropped: [Dropped]

    /// Collects outputs.
    ///
    /// - Parameters:
    ///   - chunks: The outputs, in any order.
    ///   - dropped: The rows without an output, in any order.
    public init(chunks: [Chunk], dropped: [Dropped] = []) {
        self.chunks = chunks
        self.dropped = dropped
    }
}

/// Outputs in a matrix, starting at one of its rows.
struct MatrixOutputs: ExpertOutputStorage {
    let matrix: FloatMatrix
    let rows: Range<Int>

    func withUnsafeBytes(_ body: (UnsafeRawBufferPointer) -> Void) {
        let start = self.matrix.pointer + self.rows.lowerBound * self.matrix.columns
        body(
            UnsafeRawBufferPointer(
                start: start,
                count: self.rows.count * self.matrix.columns * MemoryLayout<Float>.stride
            )
        )
    }
}
