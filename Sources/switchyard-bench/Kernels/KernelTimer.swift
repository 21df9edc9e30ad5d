// SPDX-License-Identifier: Apache-2.0

import CommandKit
import SwitchyardTypes
import TensorKernels

/// One shape of weights, cold in memory: as many copies as overflow the caches, used one after another.
final class ColdWeights {
    let outputs: Int
    let inputs: Int
    /// The copies in each type.
    let packed: [DType: [PackedMatrix]]
    /// The copies as OpenBLAS reads them, row by row in float32.
    let plain: [FloatMatrix]
    private var next = 0

    /// Makes random weights.
    ///
    /// - Parameters:
    ///   - outputs: Rows of the weights.
    ///   - inputs: Columns of the weights.
    ///   - types: In which types to pack them.
    ///   - workingSet: The minimum size of the copies of each type, in bytes.
    ///   - pool: Threads that pack.
    init(outputs: Int, inputs: Int, types: [DType], workingSet: Int, pool: WorkPool) {
        self.outputs = outputs
        self.inputs = inputs
        let source = FloatMatrix(uninitializedRows: outputs, columns: inputs)
        var numbers = BenchNumbers(seed: 1)
        numbers.fill(source)
        let bytes = UnsafeRawBufferPointer(start: source.pointer, count: outputs * inputs * 4)
        var packed: [DType: [PackedMatrix]] = [:]
        for type in types {
            func copy() -> PackedMatrix {
                PackedMatrix(packing: bytes, as: .float32, outputs: outputs, inputs: inputs, dtype: type, pool: pool)
            }
            var copies = [copy()]
            while copies.count * copies[0].byteCount < workingSet { copies.append(copy()) }
            packed[type] = copies
        }
        self.packed = packed
        var plain = [source]
        while plain.count * bytes.count < workingSet {
            let copy = FloatMatrix(uninitializedRows: outputs, columns: inputs)
            copy.pointer.update(from: source.pointer, count: outputs * inputs)
            plain.append(copy)
        }
        self.plain = plain
    }

    /// Bytes of weights in a type that one product reads.
    func byteCount(_ type: DType) -> Int { self.packed[type]?.first?.byteCount ?? 0 }

    /// The copy that has not been used for longest.
    private func turn() -> Int {
        self.next &+= 1
        return self.next
    }

    /// Calls a body with one packed copy after another for some time.
    ///
    /// - Returns: Seconds for one call.
    func time(_ type: DType, atLeast seconds: Double, _ body: (PackedMatrix) -> Void) -> Double {
        guard let copies = self.packed[type] else { return .infinity }
        return self.time(atLeast: seconds) { body(copies[$0 % copies.count]) }
    }

    /// Calls a body with one plain copy after another for some time.
    ///
    /// - Returns: Seconds for one call.
    func timePlain(atLeast seconds: Double, _ body: (FloatMatrix) -> Void) -> Double {
        self.time(atLeast: seconds) { body(self.plain[$0 % self.plain.count]) }
    }

    private func time(atLeast seconds: Double, _ body: (Int) -> Void) -> Double {
        let start = ContinuousClock.now
        var calls = 0
        while true {
            body(self.turn())
            calls += 1
            let passed = start.duration(to: .now).inSeconds
            if passed >= seconds { return passed / Double(calls) }
        }
    }
}

/// Products of some rows with cold weights, on some threads: ours, OpenBLAS's, and the plain read of the same bytes.
struct KernelTimer {
    let weights: ColdWeights
    let pool: WorkPool
    let input: FloatMatrix
    let output: FloatMatrix
    let rows: Int
    /// Seconds that one value is taken over.
    let seconds: Double

    init(weights: ColdWeights, pool: WorkPool, rows: Int, seconds: Double) {
        self.weights = weights
        self.pool = pool
        self.rows = rows
        self.seconds = seconds
        self.input = FloatMatrix(uninitializedRows: rows, columns: weights.inputs)
        self.output = FloatMatrix(uninitializedRows: rows, columns: weights.outputs)
        var numbers = BenchNumbers(seed: 2)
        numbers.fill(self.input)
    }

    /// Multiply-adds of one product, counted as two operations.
    var operations: Double { 2 * Double(self.rows) * Double(self.weights.outputs) * Double(self.weights.inputs) }

    /// - Returns: Seconds for one packed product.
    func product(_ type: DType) -> Double {
        self.weights.time(type, atLeast: self.seconds) { matrix in
            self.pool.run([Product(matrix, self.input, into: self.output)])
        }
    }

    /// - Returns: Seconds to read the packed weights of one product.
    func read(_ type: DType) -> Double {
        self.weights.time(type, atLeast: self.seconds) { matrix in
            matrix.withUnsafeBytes { ReadBandwidth.read($0, pool: self.pool) }
        }
    }

    /// OpenBLAS on as many threads, each computing some of the outputs: `sgemv` for one row, `sgemm` for more.
    ///
    /// - Returns: Seconds for one product.
    func openBLAS() -> Double {
        let inputs = self.weights.inputs
        let outputs = self.weights.outputs
        return self.weights.timePlain(atLeast: self.seconds) { matrix in
            self.pool.run(outputs) { range in
                let weights = matrix.pointer + range.lowerBound * inputs
                let target = self.output.pointer + range.lowerBound
                if self.rows == 1 {
                    OpenBLAS.multiplyTransposed(
                        vector: self.input.pointer,
                        weights,
                        into: target,
                        n: range.count,
                        k: inputs
                    )
                } else {
                    OpenBLAS.multiplyTransposed(
                        self.input.pointer,
                        leftStride: inputs,
                        weights,
                        rightStride: inputs,
                        into: target,
                        outputStride: outputs,
                        m: self.rows,
                        n: range.count,
                        k: inputs
                    )
                }
            }
        }
    }
}
