// SPDX-License-Identifier: Apache-2.0

import CommandKit
import SwitchyardTypes
import TensorKernels

/// How fast this machine reads memory that is in no cache: the limit of everything that reads weights once.
struct ReadBandwidth {
    private let memory: FloatMatrix
    private let pool: WorkPool

    /// Takes memory and touches all of it.
    ///
    /// - Parameters:
    ///   - pool: Threads that read, each its own piece.
    ///   - mebibytes: Memory to read; several times the last-level cache.
    init(pool: WorkPool, mebibytes: Int = 256) {
        self.pool = pool
        self.memory = FloatMatrix(rows: max(1, mebibytes), columns: 1 << 18)
    }

    /// Reads the memory once.
    ///
    /// - Returns: GB (10^9 bytes) per second, all threads together.
    func measure() -> Double {
        let count = self.memory.rows * self.memory.columns * MemoryLayout<Float>.stride
        let start = ContinuousClock.now
        Self.read(UnsafeRawBufferPointer(start: self.memory.pointer, count: count), pool: self.pool)
        return Double(count) / start.duration(to: .now).inSeconds / 1e9
    }

    /// Reads memory once, each thread one piece of it.
    ///
    /// - Parameters:
    ///   - bytes: The memory.
    ///   - pool: The threads.
    static func read(_ bytes: UnsafeRawBufferPointer, pool: WorkPool) {
        let page = 4096
        pool.run((bytes.count + page - 1) / page) { pages in
            let range = (pages.lowerBound * page)..<min(pages.upperBound * page, bytes.count)
            // The loop is a separate C function, so that it runs although its result is unused.
            _ = MemoryReader.read(UnsafeRawBufferPointer(rebasing: bytes[range]))
        }
    }
}

/// Random numbers for weights and activations, fast and the same in every run.
struct BenchNumbers {
    private var state: UInt64

    init(seed: UInt64) { self.state = seed &* 2 &+ 1 }

    /// A number within -1 ..< 1.
    mutating func next() -> Float {
        // A 64-bit linear congruential generator (Knuth, MMIX); its upper bits are random enough for weights.
        self.state = self.state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Float(Int32(truncatingIfNeeded: self.state >> 32)) * 0x1p-31
    }

    /// Fills a matrix.
    ///
    /// - Parameters:
    ///   - matrix: What to fill.
    ///   - scale: The largest magnitude.
    mutating func fill(_ matrix: FloatMatrix, scale: Float = 1) {
        for index in 0..<(matrix.rows * matrix.columns) { matrix.pointer[index] = self.next() * scale }
    }
}
