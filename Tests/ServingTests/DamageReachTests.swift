// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertPooling
import NIOCore
import RPCTransport
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import TensorKernels
import Testing

@testable import GatewayServing

/// How many wrong rows of a damaged host go out before the first one is refused, which ejects it.
///
/// Everything is computed from the miniature's weights and seeded inputs, so the figures, those of docs/reliability.md, are the
/// same everywhere.
@Suite("Wrong rows until an ejection")
struct DamageReachTests {
    /// The first expert of a layer, its weights, and rows for it.
    private struct Bench {
        /// Calls that a damaged host answers at most, of eight rows each: a decoder's step with eight sequences.
        static let calls = 32
        static let rowsPerCall = 8

        let columns: Int
        let width: Int
        let wi: [Float]
        let wo: [Float]
        let inputs: [[Float]]
        /// Sums before the rectifier, and outputs.
        let sums: [[Float]]
        let outputs: [[Float]]
        let limits: [Float]
    }

    /// What became of the rows of one damaged host.
    private struct Reach {
        /// Wrong rows that were taken, in all calls up to the first one with a refused row, this one included.
        var wrong = 0
        var isRefused = false
    }

    private func bench() throws -> Bench {
        let loaded = try TestModel.miniature.load()
        let layer = ExpertExecutorContractTests.layerRequest(loaded, tokens: 8).layer
        let placement = try PlacementFile.load(directory: "\(ShardCache.folder(of: .miniature, pools: 1))/gateway")
        let bound = try #require((placement.outputBounds ?? []).first { $0.layer == layer })
        func floats(_ matrix: FeedForwardMatrix) throws -> [Float] {
            try loaded.checkpoint.tensor(.expert(layer, expert: 0, matrix))
                .withUnsafeBytes { bytes in
                    (0..<bytes.count / 2)
                        .map {
                            Float(
                                bitPattern: UInt32(bytes.loadUnaligned(fromByteOffset: 2 * $0, as: UInt16.self)) << 16
                            )
                        }
                }
        }
        let (wi, wo) = (try floats(.wi), try floats(.wo))
        let columns = loaded.checkpoint.configuration.modelWidth
        let width = wi.count / columns
        var random = DamageNumbers(state: 7)
        let inputs = (0..<Bench.calls * Bench.rowsPerCall).map { _ in (0..<columns).map { _ in random.normal() } }
        let sums = inputs.map { input in
            (0..<width).map { row in (0..<columns).reduce(Float(0)) { $0 + wi[row * columns + $1] * input[$1] } }
        }
        let outputs = sums.map { sums in
            (0..<columns).map { row in (0..<width).reduce(Float(0)) { $0 + wo[row * width + $1] * max(sums[$1], 0) } }
        }
        let limits = inputs.map { bound.limit(of: 0, squaredNorm: $0.reduce(0) { $0 + $1 * $1 }) }
        return Bench(
            columns: columns,
            width: width,
            wi: wi,
            wo: wo,
            inputs: inputs,
            sums: sums,
            outputs: outputs,
            limits: limits
        )
    }

    /// Follows a damaged host call by call.
    ///
    /// - Parameters:
    ///   - bench: The rows.
    ///   - damage: The changed values of a row's outputs; empty if the damage does not touch the row.
    /// - Returns: What went out.
    private func reach(_ bench: Bench, _ damage: (Int) -> [Float]) -> Reach {
        var reach = Reach()
        for call in 0..<Bench.calls {
            for row in call * Bench.rowsPerCall..<(call + 1) * Bench.rowsPerCall {
                let values = damage(row)
                guard !values.isEmpty else { continue }
                if values.allSatisfy({ abs($0) <= bench.limits[row] }) {
                    reach.wrong += 1
                } else {
                    reach.isRefused = true
                }
            }
            if reach.isRefused { break }
        }
        return reach
    }

    private func flipped(_ value: Float, _ bit: Int) -> Float {
        Float(bitPattern: value.bitPattern ^ (1 << UInt32(bit)))
    }

    /// The outputs of a row after one of `wi` was changed to a value; empty if they are the same.
    private func outputs(_ bench: Bench, _ row: Int, wi place: Int, to value: Float) -> [Float] {
        let (unit, column) = (place / bench.columns, place % bench.columns)
        let sum = bench.sums[row][unit]
        let change = max(sum + (value - bench.wi[place]) * bench.inputs[row][column], 0) - max(sum, 0)
        guard change != 0 else { return [] }
        return (0..<bench.columns).map { bench.outputs[row][$0] + bench.wo[$0 * bench.width + unit] * change }
    }

    /// The output that one changed value of `wo` changes; empty if its unit is idle.
    private func outputs(_ bench: Bench, _ row: Int, wo place: Int, to value: Float) -> [Float] {
        let (output, unit) = (place / bench.width, place % bench.width)
        let hidden = max(bench.sums[row][unit], 0)
        guard hidden > 0 else { return [] }
        return [bench.outputs[row][output] + (value - bench.wo[place]) * hidden]
    }

    private struct Figures {
        var hosts = 0
        var refused = 0
        var harmless = 0
        var wrong: [Int] = []

        mutating func add(_ reach: Reach) {
            self.hosts += 1
            if reach.isRefused {
                self.refused += 1
                self.wrong.append(reach.wrong)
            } else if reach.wrong == 0 {
                self.harmless += 1
            }
        }

        /// The median, the 99th percentile and the most of the wrong rows that went out before a refusal.
        var spread: (median: Int, p99: Int, most: Int) {
            let sorted = self.wrong.sorted()
            guard let last = sorted.last else { return (0, 0, 0) }
            return (sorted[sorted.count / 2], sorted[sorted.count * 99 / 100], last)
        }
    }

    @Test(
        "Rubbish never goes out; damage that shows now and then does for a few rows, and damage that never shows does for ever"
    )
    func reach() throws {
        let bench = try self.bench()
        var figures: [String: Figures] = [:]
        let hosts = 200
        for host in 0..<hosts {
            var random = DamageNumbers(state: UInt64(host))
            figures["rubbish", default: Figures()].add(self.reach(bench) { _ in [3e38] })
            for (name, bits) in [("reply, high", 27..<31), ("reply, other", 0..<27)] {
                // A bit of one value in each reply of eight rows.
                figures[name, default: Figures()]
                    .add(
                        self.reach(bench) { row in
                            guard row % Bench.rowsPerCall == 0 else { return [] }
                            let value = bench.outputs[row][Int(random.next() % UInt64(bench.columns))]
                            return [self.flipped(value, bits.lowerBound + Int(random.next() % UInt64(bits.count)))]
                        }
                    )
            }
            let (inner, outer) = (
                Int(random.next() % UInt64(bench.wi.count)), Int(random.next() % UInt64(bench.wo.count))
            )
            let kinds: [(String, (Float) -> Float)] = [
                ("high", { self.flipped($0, 30) }), ("sign", { -$0 }), ("zero", { _ in 0 }),
                ("mantissa", { self.flipped($0, 22) }), ("low exponent", { self.flipped($0, 24) }),
            ]
            for (name, change) in kinds {
                figures["wi, \(name)", default: Figures()]
                    .add(
                        self.reach(bench) { self.outputs(bench, $0, wi: inner, to: change(bench.wi[inner])) }
                    )
                figures["wo, \(name)", default: Figures()]
                    .add(
                        self.reach(bench) { self.outputs(bench, $0, wo: outer, to: change(bench.wo[outer])) }
                    )
            }
        }
        // Rows that went out before the refusal: half of them, one in a hundred, all hosts.
        let seen: [String: [Int]] = [
            "rubbish": [0, 0, 0], "reply, high": [1, 9, 10], "wi, high": [2, 5, 5], "wo, high": [0, 0, 0],
        ]
        #expect(figures.count == 13)
        for (name, figure) in figures {
            #expect(figure.hosts == hosts)
            #expect(figure.harmless == 0, "\(name)")
            let spread = figure.spread
            if let most = seen[name] {
                #expect(figure.refused == hosts, "\(name)")
                #expect([spread.median, spread.p99, spread.most] == most, "\(name)")
            } else {
                #expect(figure.refused == 0, "\(name)")
            }
        }
    }
}

/// SplitMix64.
private struct DamageNumbers {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// About normal: twelve uniform numbers, which are the same on every machine.
    mutating func normal() -> Float {
        (0..<12).reduce(Float(-6)) { sum, _ in sum + Float(self.next() >> 40) / Float(1 << 24) }
    }
}
