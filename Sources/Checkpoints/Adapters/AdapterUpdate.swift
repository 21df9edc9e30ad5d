// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// What an adapter makes of one tensor: another start perhaps, and products of small matrices that are added.
///
/// Computes as `merge_and_unload` of peft 0.21.2 does (https://github.com/huggingface/peft/blob/v0.21.2/src/peft/tuners/lora/layer.py,
/// `get_delta_weight` and `merge`): the product in float32, times the scale, added to the weight in float32 and rounded
/// to the weight's type; an embedding's product is rounded before it is added, too. Sums run in the order of the rank, so
/// that float32 weights can differ from torch's in their last bits. Weights in float64 are merged in float64.
///
/// Nothing is kept: every use computes what it needs, so that memory holds one merged tensor at a time.
final class AdapterUpdate: Sendable {
    /// A product of two matrices, `[rows, rank]` and `[rank, columns]`.
    struct Product: Sendable {
        /// `lora_B`, `[rows, rank]`; for an embedding `lora_embedding_A`, `[rank, rows]`.
        var left: StoredTensor
        /// `lora_A`, `[rank, columns]`; for an embedding `lora_embedding_B`, `[columns, rank]`.
        var right: StoredTensor
        var rank: Int
        var scale: Double
        var isEmbedding: Bool
    }

    /// The adapter's weight file, for messages.
    let file: String
    /// What the adapter has in the tensor's place, in any type; nil to begin with the tensor.
    let replacement: StoredTensor?
    /// What is added, in this order.
    let products: [Product]

    init(file: String, replacement: StoredTensor?, products: [Product]) {
        self.file = file
        self.replacement = replacement
        self.products = products
    }

    /// The changed tensor, computed.
    ///
    /// - Parameter tensor: The tensor that the update belongs to: a matrix if anything is added.
    /// - Returns: A copy.
    func view(of tensor: StoredTensor) -> TensorView {
        let count = tensor.shape.reduce(1, *)
        let size = tensor.dtype.byteCount
        let copy = CopiedStorage(byteCount: count * size) { self.write(tensor, 0..<count, into: $0) }
        return TensorView(
            name: tensor.name,
            dtype: tensor.dtype,
            shape: tensor.shape,
            storage: copy,
            range: 0..<count * size
        )
    }

    /// Parts of the changed tensor's bytes, without computing the rest.
    ///
    /// - Parameters:
    ///   - tensor: The tensor that the update belongs to.
    ///   - ranges: Ranges of its bytes.
    /// - Returns: The bytes of each range.
    func bytes(of tensor: StoredTensor, _ ranges: [Range<Int>]) -> [[UInt8]] {
        let size = tensor.dtype.byteCount
        return ranges.map { range in
            let elements = range.lowerBound / size..<(range.upperBound + size - 1) / size
            var bytes = [UInt8](repeating: 0, count: elements.count * size)
            bytes.withUnsafeMutableBytes { self.write(tensor, elements, into: $0) }
            let start = range.lowerBound - elements.lowerBound * size
            return Array(bytes[start..<start + range.count])
        }
    }

    private func write(_ tensor: StoredTensor, _ elements: Range<Int>, into target: UnsafeMutableRawBufferPointer) {
        if tensor.dtype == .float64 {
            self.write(
                tensor,
                elements,
                load: { $0.double($1, $2) },
                round: { $1 },
                store: { value, index in
                    target.storeBytes(
                        of: value.bitPattern.littleEndian,
                        toByteOffset: 8 * (index - elements.lowerBound),
                        as: UInt64.self
                    )
                }
            )
        } else {
            self.write(
                tensor,
                elements,
                load: { Float($0.double($1, $2)) },
                round: { $0.rounded($1) },
                store: { tensor.dtype.store($0, target, $1 - elements.lowerBound) }
            )
        }
    }

    /// Computes elements row by row, in `Real`.
    @inline(__always)
    private func write<Real: BinaryFloatingPoint>(
        _ tensor: StoredTensor,
        _ elements: Range<Int>,
        load: (DType, UnsafeRawBufferPointer, Int) -> Real,
        round: (DType, Real) -> Real,
        store: (Real, Int) -> Void
    ) {
        guard !elements.isEmpty else { return }
        let columns = tensor.shape.count == 2 ? tensor.shape[1] : tensor.shape.reduce(1, *)
        let factors = self.products.map { Factors(product: $0, columns: columns, load: load) }
        let source = self.replacement?.unchangedView() ?? tensor.unchangedView()
        source.withUnsafeBytes { bytes in
            var values: [Real] = []
            for row in elements.lowerBound / columns...(elements.upperBound - 1) / columns {
                let span = (row * columns..<(row + 1) * columns).clamped(to: elements)
                values.removeAll(keepingCapacity: true)
                for index in span { values.append(round(tensor.dtype, load(source.dtype, bytes, index))) }
                for factor in factors {
                    let left = factor.left(row, load: load)
                    let first = span.lowerBound - row * columns
                    var sums = [Real](repeating: 0, count: span.count)
                    for (k, weight) in left.enumerated() {
                        Self.add(weight, factor.right, from: k * columns + first, to: &sums)
                    }
                    let scale = Real(factor.product.scale)
                    for column in sums.indices {
                        var delta = sums[column] * scale
                        if factor.product.isEmbedding { delta = round(tensor.dtype, delta) }
                        values[column] = round(tensor.dtype, values[column] + delta)
                    }
                }
                for (offset, value) in values.enumerated() { store(value, span.lowerBound + offset) }
            }
        }
    }

    /// Adds a multiple of a row to sums.
    @inline(__always)
    private static func add<Real: BinaryFloatingPoint>(
        _ weight: Real,
        _ row: [Real],
        from start: Int,
        to sums: inout [Real]
    ) {
        row.withUnsafeBufferPointer { row in
            sums.withUnsafeMutableBufferPointer { sums in
                for index in sums.indices { sums[index] += weight * row[start + index] }
            }
        }
    }
}

/// The factors of one product, the right one as numbers.
private struct Factors<Real: BinaryFloatingPoint> {
    let product: AdapterUpdate.Product
    /// `[rank, columns]`.
    let right: [Real]
    private let leftView: TensorView

    @inline(__always)
    init(
        product: AdapterUpdate.Product,
        columns: Int,
        load: (DType, UnsafeRawBufferPointer, Int) -> Real
    ) {
        self.product = product
        self.leftView = product.left.view()
        let view = product.right.view()
        self.right = view.withUnsafeBytes { bytes in
            (0..<product.rank * columns)
                .map { index in
                    guard product.isEmbedding else { return load(view.dtype, bytes, index) }
                    return load(view.dtype, bytes, index % columns * product.rank + index / columns)
                }
        }
    }

    /// A row of the left matrix.
    @inline(__always)
    func left(_ row: Int, load: (DType, UnsafeRawBufferPointer, Int) -> Real) -> [Real] {
        let rows = self.product.isEmbedding ? self.leftView.shape[1] : self.leftView.shape[0]
        return self.leftView.withUnsafeBytes { bytes in
            (0..<self.product.rank)
                .map { k in
                    load(
                        self.leftView.dtype,
                        bytes,
                        self.product.isEmbedding ? k * rows + row : row * self.product.rank + k
                    )
                }
        }
    }
}
