// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardTypes

/// What transformers computed with one fixture: the text half, `golden.json` (see Tests/Fixtures/make_parity_fixtures.py).
struct ParityGoldens: Decodable {
    struct Prompt: Decodable {
        var ids: [Int32]
        var decoder: [Int32]
    }

    struct Generation: Decodable {
        struct Result: Decodable {
            var ids: [Int32]
            var score: Double?
        }

        var name: String
        var parameters: Parameters
        /// For each prompt its sequences, best first.
        var results: [[Result]]
    }

    /// The parameters of a generation by transformers' names, in camel case.
    struct Parameters: Decodable {
        enum EarlyStopping: Decodable, Equatable {
            case `true`, `false`, never

            init(from decoder: any Decoder) throws {
                let container = try decoder.singleValueContainer()
                if let flag = try? container.decode(Bool.self) {
                    self = flag ? .true : .false
                } else if try container.decode(String.self) == "never" {
                    self = .never
                } else {
                    throw DecodingError.dataCorruptedError(
                        in: container,
                        debugDescription: "early_stopping is true, false or \"never\""
                    )
                }
            }
        }

        var maxNewTokens: Int
        var minNewTokens: Int?
        var numBeams: Int?
        var lengthPenalty: Float?
        var earlyStopping: EarlyStopping?
        var numReturnSequences: Int?
        var repetitionPenalty: Float?
    }

    var prompts: [Prompt]
    /// Prompts whose blocks and router probabilities were kept whole.
    var detailed: [Int]
    var batches: [[Int]]
    var generations: [Generation]
}

/// The tensors of a golden file, read by a reader of the tests' own: the one under test must not vouch for itself.
struct ParityTensors {
    struct Entry {
        var dtype: String
        var shape: [Int]
        var range: Range<Int>
    }

    struct ReadError: Error, CustomStringConvertible {
        var description: String
    }

    private let file: Data
    let entries: [String: Entry]

    init(path: String) throws {
        let file = try Data(contentsOf: URL(fileURLWithPath: path))
        guard file.count > 8 else { throw ReadError(description: "\(path) is too short") }
        let headerBytes = file[0..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
        let header = try JSONSerialization.jsonObject(with: file[8..<(8 + headerBytes)])
        guard let fields = header as? [String: [String: Any]] else {
            throw ReadError(description: "\(path) has no header")
        }
        var entries: [String: Entry] = [:]
        for (name, field) in fields where name != "__metadata__" {
            guard
                let dtype = field["dtype"] as? String,
                let shape = field["shape"] as? [Int],
                let offsets = field["data_offsets"] as? [Int], offsets.count == 2
            else { throw ReadError(description: "\(path): \(name) lacks a field") }
            let start = 8 + headerBytes
            entries[name] = Entry(dtype: dtype, shape: shape, range: start + offsets[0]..<start + offsets[1])
        }
        self.file = file
        self.entries = entries
    }

    private func entry(_ name: String, dtype: String) throws -> Entry {
        guard let entry = self.entries[name] else { throw ReadError(description: "no golden tensor \(name)") }
        guard entry.dtype == dtype else { throw ReadError(description: "\(name) is \(entry.dtype), not \(dtype)") }
        return entry
    }

    /// The values of a float32 tensor, row-major.
    func floats(_ name: String) throws -> [Float] {
        let entry = try self.entry(name, dtype: "F32")
        return self.file.withUnsafeBytes { bytes in
            stride(from: entry.range.lowerBound, to: entry.range.upperBound, by: 4)
                .map {
                    Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: $0, as: UInt32.self)))
                }
        }
    }

    /// The values of an unsigned byte tensor.
    func bytes(_ name: String) throws -> [UInt8] {
        let entry = try self.entry(name, dtype: "U8")
        return [UInt8](self.file[entry.range])
    }
}

/// ||a - b|| / ||b||, or infinity where the counts differ.
func relativeError(_ values: [Float], to golden: [Float]) -> Double {
    guard values.count == golden.count else { return .infinity }
    var difference = 0.0
    var norm = 0.0
    for (value, golden) in zip(values, golden) {
        difference += (Double(value) - Double(golden)) * (Double(value) - Double(golden))
        norm += Double(golden) * Double(golden)
    }
    return norm > 0 ? (difference / norm).squareRoot() : (difference > 0 ? .infinity : 0)
}

/// The largest |a - b|, or infinity where the counts differ.
func largestDifference(_ values: [Float], to golden: [Float]) -> Float {
    guard values.count == golden.count else { return .infinity }
    return zip(values, golden).reduce(0) { max($0, abs($1.0 - $1.1)) }
}
