// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// Floats rounded to bfloat16 in place, to nearest even; beyond the largest bfloat16 they become infinite, and a NaN stays
/// one.
enum Rounding {
    static func round(_ values: UnsafeMutablePointer<Float>, count: Int) {
        values.withMemoryRebound(to: UInt32.self, capacity: count) { bits in
            for index in 0..<count {
                let number = bits[index]
                let rounded = (number &+ 0x7FFF &+ (number >> 16 & 1)) & 0xFFFF_0000
                let isNaN = number & 0x7FFF_FFFF > 0x7F80_0000
                bits[index] = isNaN ? number & 0xFFFF_0000 | 0x0040_0000 : rounded
            }
        }
    }

    /// Copies weights, rounded; routers' as they are.
    static func copy(_ weights: ParameterBuffer, into rounded: ParameterBuffer, pool: WorkPool) {
        for (index, entry) in weights.layout.entries.enumerated() {
            let (source, target) = (weights.start(index), rounded.start(index))
            WorkPool.share(entry.range.count, width: 1, among: pool) { range in
                (target + range.lowerBound).update(from: source + range.lowerBound, count: range.count)
                if entry.kind != .router { Self.round(target + range.lowerBound, count: range.count) }
            }
        }
    }
}

extension PartRun {
    /// Whether rows between operations are bfloat16 numbers.
    var rounds: Bool { self.settings.precision == .bfloat16 }

    /// Rounds one row that an operation hands on, where rows are bfloat16 numbers.
    func settle(_ row: UnsafeMutablePointer<Float>, count: Int) {
        if self.rounds { Rounding.round(row, count: count) }
    }

    /// Rounds the rows that an operation hands on, where rows are bfloat16 numbers.
    func settle(_ rows: Rows?) {
        guard self.rounds, let rows else { return }
        self.share(rows.count, width: rows.columns) { range in
            for row in range { Rounding.round(rows.row(row), count: rows.columns) }
        }
    }
}
