// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardTypes
import Synchronization
import Testing

@testable import Checkpoints

@Suite struct CheckpointSharderTests {
    /// Cuts the tiny model into `folder/out`.
    private func cut(_ folder: TemporaryFolder, pools: Int = 2, force: Bool = false) throws -> PlacementFile {
        let model = try TemporaryFolder()
        try TinyModel().write(to: model)
        return try CheckpointSharder.shard(model: model.path, output: "\(folder.path)/out", pools: pools, force: force)
    }

    @Test func theMiniatureIsCutIntoPartsThatMakeItUp() throws {
        let folder = try TemporaryFolder()
        let output = "\(folder.path)/parts"
        let whole = try Checkpoint.open(Repository.mini)
        let seen = Mutex([WorkProgress]())
        let placement = try CheckpointSharder.shard(model: Repository.mini, output: output, pools: 4) { progress in
            seen.withLock { $0.append(progress) }
        }
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: output).sorted()
                == ["gateway", "placement.json", "pool-0", "pool-1", "pool-2", "pool-3"]
        )
        #expect(placement.pools.map(\.experts) == [[0, 1], [2, 3], [4, 5], [6, 7]])
        #expect(try PlacementFile.load(directory: output) == placement)
        #expect(try PlacementFile.load(directory: "\(output)/gateway") == placement)
        #expect(placement.source == "switch-mini")
        #expect(placement.fingerprintValue == whole.fingerprint)

        var names: Set<String> = []
        for part in ["gateway", "pool-0", "pool-1", "pool-2", "pool-3"] {
            let checkpoint = try Checkpoint.open("\(output)/\(part)")
            try checkpoint.validate()
            #expect(checkpoint.fingerprint == whole.fingerprint)
            #expect(checkpoint.manifest?.name == part)
            for (name, stored) in checkpoint.tensors {
                #expect(names.insert(name).inserted)
                let role = try #require(TensorRole(name: name))
                #expect(role.isExpert == (part != "gateway"))
                #expect(try stored.view().bytes == whole.tensor(role).bytes)
                #expect(stored.range.lowerBound.isMultiple(of: SafetensorsWriter.alignment))
            }
        }
        #expect(names == Set(whole.tensors.keys))
        let pool = try Checkpoint.open("\(output)/pool-2")
        #expect(pool.heldExperts.count == 4)
        #expect(pool.heldExperts.values.allSatisfy { $0 == [4, 5] })
        let missing = failure { _ = try pool.tensor(.expert(SparseLayer(stack: .encoder, block: 1), expert: 0, .wi)) }
        #expect(missing?.code == .missingTensor && missing?.message.contains("part") == true)
        let gateway = try FileManager.default.contentsOfDirectory(atPath: "\(output)/gateway")
        #expect(
            Set(gateway).isSuperset(of: ["config.json", "generation_config.json", "spiece.model", "placement.json"])
        )

        let writing = seen.withLock { $0.filter { $0.unit == .bytes } }
        #expect(writing.last?.fraction == 1)
        #expect(zip(writing, writing.dropFirst()).allSatisfy { $0.completed <= $1.completed })
        #expect(
            Set(writing.map(\.label)) == [
                "Writing gateway", "Writing pool-0", "Writing pool-1", "Writing pool-2", "Writing pool-3",
            ]
        )
        #expect(try folder.names == ["parts"])
    }

    @Test func thePlacementBoundsEachExpertsOutputs() throws {
        let folder = try TemporaryFolder()
        let output = "\(folder.path)/parts"
        let placement = try CheckpointSharder.shard(model: Repository.mini, output: output, pools: 1)
        let whole = try Checkpoint.open(Repository.mini)
        let all = try #require(placement.outputBounds)
        #expect(all.compactMap(\.layer) == whole.configuration.sparseLayers)
        for bounds in all {
            let layer = try #require(bounds.layer)
            #expect(bounds.degree == 1)
            #expect(bounds.experts.count == whole.configuration.expertCount)
            func squares(_ expert: Int, _ matrix: FeedForwardMatrix) throws -> [[Double]] {
                let view = try whole.tensor(.expert(layer, expert: expert, matrix))
                return view.withUnsafeBytes { bytes in
                    (0..<view.shape[0])
                        .map { row in
                            (0..<view.shape[1])
                                .map { column in
                                    let value = Double(view.dtype.float(bytes, row * view.shape[1] + column))
                                    return value * value
                                }
                        }
                }
            }
            for expert in [0, bounds.experts.count - 1] {
                let inner = try squares(expert, .wi).joined().reduce(0, +)
                let outer = try squares(expert, .wo).map { $0.reduce(0, +) }.max() ?? 0
                let expected = (inner * outer).squareRoot()
                let bound = Double(bounds.experts[expert])
                #expect(bound >= expected && bound < expected * 1.001)
            }
        }
    }

    @Test func boundsThatCannotBeAreRefusedAndMissingOnesAreNot() throws {
        let folder = try TemporaryFolder()
        _ = try self.cut(folder)
        let directory = "\(folder.path)/out"
        let path = "\(directory)/\(PlacementFile.fileName)"
        let placement = try PlacementFile.load(directory: directory)
        let bounds = try #require(placement.outputBounds?.first)
        func load(_ change: (inout PlacementFile) -> Void) throws -> PlacementFile {
            var changed = placement
            change(&changed)
            try JSONEncoder().encode(changed).write(to: URL(filePath: path))
            return try PlacementFile.load(directory: directory)
        }
        #expect(try load { $0.outputBounds = nil }.outputBounds == nil)
        let changes: [(inout LayerOutputBounds) -> Void] = [
            { $0.degree = 0 }, { $0.degree = 4 }, { $0.stack = "middle" }, { $0.experts.removeLast() },
            { $0.experts[0] = -1 },
        ]
        for change in changes {
            var wrong = bounds
            change(&wrong)
            let thrown = failure { _ = try load { $0.outputBounds?[0] = wrong } }
            #expect(thrown?.code == .malformed && thrown?.message.contains("outputBounds") == true)
        }
        let twice = failure { _ = try load { $0.outputBounds?.append(bounds) } }
        #expect(twice?.code == .malformed && twice?.message.contains("once") == true)
    }

    @Test func limitsAreFiniteAndNeverBelowTheBound() {
        let layer = SparseLayer(stack: .encoder, block: 1)
        for degree in 1...3 {
            let bounds = LayerOutputBounds(layer: layer, degree: degree, experts: [0, 2, .greatestFiniteMagnitude])
            for norm: Float in [0, .leastNonzeroMagnitude, 1, 100, 1e38, .greatestFiniteMagnitude, .infinity, .nan] {
                for expert in 0..<3 { #expect(bounds.limit(of: expert, squaredNorm: norm).isFinite) }
            }
            #expect(bounds.limit(of: 0, squaredNorm: 1) == 0)
            #expect(bounds.limit(of: 1, squaredNorm: 4) > 2 * [1, 2, 4, 8][degree])
            #expect(bounds.limit(of: 1, squaredNorm: 4) < 24 * [1, 2, 4, 8][degree])
            #expect(bounds.limit(of: 2, squaredNorm: 1) == .greatestFiniteMagnitude)
            #expect(bounds.limit(of: 0, squaredNorm: .nan) == .greatestFiniteMagnitude)
        }
    }

    @Test func torchFilesAreCutTheSame() throws {
        let folder = try TemporaryFolder()
        for name in ["torch", "torch-sharded", "safetensors"] {
            _ = try CheckpointSharder.shard(model: Repository.fixture(name), output: "\(folder.path)/\(name)", pools: 3)
        }
        for file in [
            "gateway/model.safetensors", "pool-1/model.safetensors", "pool-2/manifest.json", "pool-0/config.json",
        ] {
            let reference = try Repository.bytes("\(folder.path)/safetensors/\(file)")
            #expect(!reference.isEmpty)
            guard file.hasSuffix("safetensors") || file.hasSuffix("config.json") else { continue }
            for name in ["torch", "torch-sharded"] {
                #expect(try Repository.bytes("\(folder.path)/\(name)/\(file)") == reference)
            }
        }
    }

    @Test(arguments: [(8, 1), (8, 3), (8, 8), (7, 4), (2_048, 5), (65_536, 65_535)])
    func everyExpertHasThePoolOfTheFormula(experts: Int, pools: Int) {
        let ranges = (0..<pools).map { CheckpointSharder.experts(of: $0, pools: pools, experts: experts) }
        #expect(ranges.first?.lowerBound == 0 && ranges.last?.upperBound == experts)
        for (pool, range) in ranges.enumerated() {
            #expect(!range.isEmpty)
            #expect(range.first.map { $0 * pools / experts } == pool && range.last.map { $0 * pools / experts } == pool)
        }
        #expect(zip(ranges, ranges.dropFirst()).allSatisfy { $0.upperBound == $1.lowerBound })
    }

    @Test func partsRememberOverrides() throws {
        let (folder, model) = (try TemporaryFolder(), try TemporaryFolder())
        try TinyModel(extra: ", \"layer_norm_epsilon\": 0.5").write(to: model)
        let output = "\(folder.path)/out"
        _ = try CheckpointSharder.shard(
            model: model.path,
            output: output,
            pools: 1,
            overrides: ["layer_norm_epsilon": "1e-6", "expert_capacity": "9"]
        )
        let gateway = try Checkpoint.open("\(output)/gateway")
        #expect(gateway.configuration.layerNormEpsilon == 1e-6)
        #expect(gateway.configuration.expertCapacity == 9)
        let changed = try Checkpoint.open(
            "\(output)/gateway",
            overrides: ["expert_capacity": "3", "layer_norm_epsilon": "1e-4"]
        )
        #expect(changed.configuration.expertCapacity == 3)
        #expect(changed.fingerprint == gateway.fingerprint)
    }

    @Test(arguments: [0, -1, 4])
    func impossibleNumbersOfPoolsAreRefused(pools: Int) throws {
        let folder = try TemporaryFolder()
        let error = failure { _ = try self.cut(folder, pools: pools) }
        #expect(error?.code == .invalidArgument)
        #expect(error?.message.contains("choose 1 through 3") == true)
        #expect(try folder.names.isEmpty)
    }

    @Test func partsAndDenseModelsAreNotCut() throws {
        let folder = try TemporaryFolder()
        _ = try self.cut(folder)
        let part = failure {
            _ = try CheckpointSharder.shard(model: "\(folder.path)/out/gateway", output: "\(folder.path)/x", pools: 1)
        }
        #expect(part?.code == .invalidArgument)
        let model = try TemporaryFolder()
        var dense = TinyModel()
        dense.configuration.encoderSparseStep = 0
        dense.configuration.decoderSparseStep = 0
        try dense.write(to: model)
        let error = failure { _ = try CheckpointSharder.shard(model: model.path, output: "\(folder.path)/x", pools: 1) }
        #expect(error?.message.contains("no experts") == true)
    }

    @Test func anOutputThatExistsIsKept() throws {
        let folder = try TemporaryFolder()
        let output = try folder.makeFolder("out")
        // An empty folder is as good as none.
        _ = try self.cut(folder)
        #expect(failure { _ = try self.cut(folder) }?.code == .outputExists)
        #expect(try self.cut(folder, pools: 3, force: true).pools.count == 3)
        #expect(try PlacementFile.load(directory: output).pools.count == 3)
        // Force replaces earlier cuts only.
        try FileManager.default.removeItem(atPath: "\(output)/placement.json")
        #expect(failure { _ = try self.cut(folder, force: true) }?.code == .outputExists)
        try folder.write("text", to: "file")
        let model = try TemporaryFolder()
        try TinyModel().write(to: model)
        #expect(
            failure { _ = try CheckpointSharder.shard(model: model.path, output: "\(folder.path)/file", pools: 1) }?
                .code == .outputExists
        )
        #expect(
            failure { _ = try CheckpointSharder.shard(model: model.path, output: "\(folder.path)/a/b", pools: 1) }?.code
                == .notFound
        )
        #expect(try folder.names == ["file", "out"])
    }

    @Test func theModelItselfIsNeverReplaced() throws {
        let folder = try TemporaryFolder()
        let model = TinyModel()
        try model.write(to: folder)
        try folder.write("{}", to: "placement.json")
        let error = failure {
            _ = try CheckpointSharder.shard(model: folder.path, output: folder.path, pools: 1, force: true)
        }
        #expect(error?.code == .outputExists)
        #expect(try folder.names == ["config.json", "model.safetensors", "placement.json"])
    }

    @Test func aMixedUpPartIsFoundOut() throws {
        let folder = try TemporaryFolder()
        _ = try self.cut(folder, pools: 3)
        let out = "\(folder.path)/out"
        try FileManager.default.removeItem(atPath: "\(out)/pool-0/model.safetensors")
        try FileManager.default.copyItem(
            atPath: "\(out)/pool-1/model.safetensors",
            toPath: "\(out)/pool-0/model.safetensors"
        )
        #expect(failure { _ = try Checkpoint.open("\(out)/pool-0") }?.code == .fingerprintMismatch)
    }

    @Test func partsWithoutAListOfFilesAreRead() throws {
        let folder = try TemporaryFolder()
        _ = try self.cut(folder, pools: 1)
        let path = "\(folder.path)/out/pool-0/manifest.json"
        let document = try JSONSerialization.jsonObject(with: Data(try Repository.bytes(path)))
        var manifest = try #require(document as? [String: Any])
        #expect(manifest.removeValue(forKey: "files") != nil)
        let text = String(decoding: try JSONSerialization.data(withJSONObject: manifest), as: UTF8.self)
        try folder.write(text, to: "out/pool-0/manifest.json")
        let checkpoint = try Checkpoint.open("\(folder.path)/out/pool-0")
        #expect(checkpoint.manifest?.files == nil)
        #expect(checkpoint.manifest?.name == "pool-0")
    }

    @Test(arguments: [
        ("\"formatVersion\" : 1", "\"formatVersion\" : 2", "formatVersion 2"),
        ("\"fingerprint\" : \"", "\"fingerprint\" : \"zz", "sixteen hexadecimal digits"),
        ("\"stack\" : \"encoder\"", "\"stack\" : \"middle\"", "names a stack \"middle\""),
        ("\"stack\" : \"encoder\"", "\"stack\" : \"decoder\"", "names a layer twice"),
        ("\"block\" : 1", "\"block\" : 99", "does not have"),
        ("\"kind\" : \"experts\"", "\"kind\" : \"other\"", "not the expected JSON"),
        ("\"pools\" : 1", "\"pools\" : \"1\"", "wrong type at pools"),
    ])
    func damagedManifestsAreRefused(old: String, new: String, complaint: String) throws {
        let folder = try TemporaryFolder()
        _ = try self.cut(folder, pools: 1)
        let path = "\(folder.path)/out/pool-0/manifest.json"
        let text = String(decoding: try Repository.bytes(path), as: UTF8.self)
        #expect(text.contains(old))
        let range = try #require(text.range(of: old))
        try folder.write(text.replacingCharacters(in: range, with: new), to: "out/pool-0/manifest.json")
        let error = failure { _ = try Checkpoint.open("\(folder.path)/out/pool-0") }
        #expect(error?.description.contains(complaint) == true, "\(String(describing: error))")
        #expect(error?.file == path)
    }

    @Test(arguments: [
        ("\"formatVersion\" : 1", "\"formatVersion\" : 9", "formatVersion 9"),
        ("\"directory\" : \"pool-0\"", "\"directory\" : \"../pool-0\"", "cannot be next to"),
        ("\"name\" : \"pool-0\"", "\"name\" : \"pool-1\"", "names a pool twice"),
        ("\"expertCount\" : 3", "\"expertCount\" : 4", "exactly one pool"),
        ("\"expertCount\" : 3", "\"expertCount\" : 4611686018427387904", "exactly one pool"),
        ("\"fingerprint\" : \"", "\"fingerprint\" : \"0", "sixteen hexadecimal digits"),
    ])
    func damagedPlacementsAreRefused(old: String, new: String, complaint: String) throws {
        let folder = try TemporaryFolder()
        _ = try self.cut(folder)
        let text = String(decoding: try Repository.bytes("\(folder.path)/out/placement.json"), as: UTF8.self)
        let range = try #require(text.range(of: old))
        try folder.write(text.replacingCharacters(in: range, with: new), to: "out/placement.json")
        let error = failure { _ = try PlacementFile.load(directory: "\(folder.path)/out") }
        #expect(error?.description.contains(complaint) == true, "\(String(describing: error))")
    }

    @Test func aPartWithAForeignTensorIsNotValid() throws {
        let folder = try TemporaryFolder()
        _ = try self.cut(folder, pools: 3)
        let part = "\(folder.path)/out/pool-0"
        let held = try Checkpoint.open(part).tensors.values.map { $0.view() }
        try FileManager.default.removeItem(atPath: "\(part)/model.safetensors")
        let foreign = try TensorView(name: "added.weight", dtype: .float32, shape: [1], bytes: [0, 0, 0, 0])
        try SafetensorsWriter.write(held + [foreign], to: "\(part)/model.safetensors")
        let checkpoint = try Checkpoint.open(part)
        #expect(failure { try checkpoint.validate() }?.code == .unknownTensor)
    }
}
