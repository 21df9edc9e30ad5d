// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import SwitchModel
import SwitchyardTypes
import Synchronization
import TensorKernels
import Testing

/// What labml_nn computes with one of its models (`Tests/Fixtures/make_labml_cases.py`).
struct LabmlFixture: Sendable {
    /// `golden.json`.
    struct Goldens: Decodable, Sendable {
        /// A pass in which tokens over capacity were dropped.
        struct Drops: Decodable, Sendable {
            enum CodingKeys: String, CodingKey {
                case prefix, sequences, dropped, drawn
                case capacityFactor = "capacity_factor"
                case scales = "is_scale_prob"
            }

            var prefix: String
            var sequences: [[Int32]]
            /// For each layer the dropped tokens, one sequence's after another.
            var dropped: [[Int]]
            /// Whether labml drew them, or took them in the order of the tokens.
            var drawn: Bool
            var capacityFactor: Double
            var scales: Bool
        }

        enum CodingKeys: String, CodingKey {
            case sequences, drops, sampling, greedy
            case leftOut = "left_out"
        }

        var sequences: [[Int32]]
        var drops: [Drops]
        var sampling: [[UInt32]]
        /// Prompts, each with its continuation.
        var greedy: [[[UInt32]]]
        var leftOut: Int
    }

    enum Size: String, CaseIterable, Sendable {
        case tiny, original
    }

    let goldens: Goldens
    /// A whole checkpoint.
    let model: TestModel
    private let tensors: [String: [Float]]

    init(_ size: Size) throws {
        let folder = TestModel.root + "Tests/Fixtures/labml/\(size.rawValue)"
        self.goldens = try JSONDecoder()
            .decode(Goldens.self, from: Data(contentsOf: URL(filePath: "\(folder)/golden.json")))
        self.tensors = try Self.read("\(folder)/golden.safetensors")
        self.model = size == .tiny ? TestModel(path: folder) : try LabmlRecipe.model(like: folder)
    }

    /// The values of a golden tensor, row-major.
    func golden(_ name: String) throws -> [Float] { try #require(self.tensors[name], "no golden tensor \(name)") }

    /// The model as the file has it, or with overrides.
    func load(_ overrides: [String: String] = [:], threads: Int = 1) throws -> LoadedModel {
        let checkpoint = try Checkpoint.open(self.model.directory, overrides: overrides)
        try checkpoint.validate()
        let pool = WorkPool(threads: threads)
        return LoadedModel(
            checkpoint: checkpoint,
            model: try SwitchTransformer(checkpoint: checkpoint, pool: pool),
            experts: try LocalExperts(checkpoint: checkpoint, pool: pool)
        )
    }

    /// Reads a file of float32 tensors by itself: the reader under test must not vouch for itself.
    private static func read(_ path: String) throws -> [String: [Float]] {
        let file = try Data(contentsOf: URL(filePath: path))
        let length = file[0..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
        let header = try #require(
            try JSONSerialization.jsonObject(with: file[8..<(8 + length)]) as? [String: [String: Any]]
        )
        var tensors: [String: [Float]] = [:]
        for (name, entry) in header where name != "__metadata__" {
            let offsets = try #require(entry["data_offsets"] as? [Int])
            let bytes = Data(file[(8 + length + offsets[0])..<(8 + length + offsets[1])])
            tensors[name] = bytes.withUnsafeBytes { bytes in
                stride(from: 0, to: bytes.count, by: 4)
                    .map {
                        Float(
                            bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: $0, as: UInt32.self))
                        )
                    }
            }
        }
        return tensors
    }
}

/// Weights that are functions of their tensor's name and their place, so that a model of megabytes needs no file: `draw` and
/// `scale` of `make_labml_cases.py`.
enum LabmlRecipe {
    private static let folder = FileManager.default.temporaryDirectory
        .appending(path: "switchyard-labml-\(ProcessInfo.processInfo.processIdentifier)")
    private static let made = Mutex(false)

    /// A checkpoint with the configuration of a folder, made once for all tests of the process.
    static func model(like folder: String) throws -> TestModel {
        try self.made.withLock { made in
            let model = TestModel(path: self.folder.path(percentEncoded: false))
            guard !made else { return model }
            atexit { try? FileManager.default.removeItem(at: LabmlRecipe.folder) }
            try FileManager.default.createDirectory(at: self.folder, withIntermediateDirectories: true)
            let configuration = URL(filePath: "\(folder)/config.json")
            try FileManager.default.copyItem(at: configuration, to: self.folder.appending(path: "config.json"))
            try SafetensorsWriter.write(
                try self.tensors(of: try ModelConfiguration.load(directory: model.directory)),
                to: "\(model.directory)/model.safetensors"
            )
            made = true
            return model
        }
    }

    private static func tensors(of configuration: ModelConfiguration) throws -> [TensorView] {
        let experts = configuration.sparseLayers.flatMap { layer in
            (0..<configuration.expertCount).flatMap { configuration.expertRoles(layer, expert: $0) }
        }
        return try (configuration.gatewayRoles + experts)
            .map { role in
                let (name, shape) = (configuration.name(of: role), configuration.shape(of: role))
                let values = self.draw(name, count: shape.reduce(1, *), self.scale(name, shape))
                return try TensorView(
                    name: name,
                    dtype: .float32,
                    shape: shape,
                    bytes: values.withUnsafeBytes { Array($0) }
                )
            }
    }

    private static func draw(_ name: String, count: Int, _ scale: (scale: Double, offset: Float)) -> [Float] {
        let seed = name.utf8.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
        let step = Float(scale.scale * 0x1p-23)
        return (0..<count)
            .map { index in
                var z = seed &+ UInt64(index) &* 0x9E37_79B9_7F4A_7C15 &+ 0x9E37_79B9_7F4A_7C15
                z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
                z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
                return scale.offset + Float(Int64((z ^ (z >> 31)) >> 40) - (1 << 23)) * step
            }
    }

    private static func scale(_ name: String, _ shape: [Int]) -> (scale: Double, offset: Float) {
        if name.contains("norm") { return name.hasSuffix("weight") ? (0.5, 1) : (0.25, 0) }
        if name.hasSuffix("bias") { return (0.25, 0) }
        if name == "src_embed.weight" { return (2, 0) }
        let gains = [("query", 2.0), ("key", 2), ("switch", 2), ("generator", 4), ("layer2", 2)]
        let gain = gains.first { ".\(name).".contains(".\($0.0).") }?.1 ?? 1
        let deviation = (3 / Double(shape[shape.count - 1])).squareRoot()
        return (exp2(log2(deviation * gain).rounded(.toNearestOrEven)), 0)
    }
}

/// `||a - b|| / ||b||`.
func relativeDistance(_ found: [Float], _ golden: [Float]) -> Double {
    guard found.count == golden.count else { return .infinity }
    var (difference, norm) = (0.0, 0.0)
    for (a, b) in zip(found, golden) {
        difference += (Double(a) - Double(b)) * (Double(a) - Double(b))
        norm += Double(b) * Double(b)
    }
    return (difference / norm).squareRoot()
}

extension FloatMatrix {
    /// All elements, row-major.
    var elements: [Float] { (0..<self.rows).flatMap { Array(self.row($0)) } }

    /// The bits of all elements.
    var elementBits: [UInt32] { self.elements.map(\.bitPattern) }
}
