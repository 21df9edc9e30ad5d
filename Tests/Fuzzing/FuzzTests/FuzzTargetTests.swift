// SPDX-License-Identifier: Apache-2.0

import Foundation
import FuzzTargets
import Testing

@Suite("Fuzz targets")
struct FuzzTargetTests {
    /// The folder of the kept inputs: one folder for each target, and for each folder the cases that once failed.
    private static let corpus = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("Corpus")

    private static func files(in folder: URL) throws -> [URL] {
        guard FileManager.default.fileExists(atPath: folder.path) else { return [] }
        return try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            .filter { !$0.hasDirectoryPath }.sorted { $0.path < $1.path }
    }

    @Test("every kept input runs without a finding", arguments: FuzzTarget.allCases)
    func corpus(target: FuzzTarget) throws {
        let files = try Self.files(in: Self.corpus.appendingPathComponent(target.rawValue))
        // The seeds of files are whole files; a folder is for what other programs wrote, and for cases.
        #expect(!files.isEmpty || target.readsFiles)
        for file in files {
            let bytes = Array(try Data(contentsOf: file))
            #expect(throws: Never.self, "\(file.lastPathComponent)") { try target.run(bytes) }
        }
    }

    @Test("every seed runs without a finding, and the same way twice", arguments: FuzzTarget.allCases)
    func seeds(target: FuzzTarget) throws {
        let seeds = Seeds.inputs(for: target)
        #expect(!seeds.isEmpty)
        for seed in seeds {
            let first = try target.run(seed.bytes)
            let second = try target.run(seed.bytes)
            #expect(first == second, "\(seed.name)")
        }
    }

    @Test("some hundred mutated inputs run without a finding", arguments: FuzzTarget.allCases.filter { !$0.readsFiles })
    func mutations(target: FuzzTarget) throws {
        let seeds = Seeds.inputs(for: target).map(\.bytes)
        var random = SplitMix64(seed: 7)
        var mutator = Mutator(target: target, seed: 7)
        let runs = target.takesFrames ? 150 : 600
        for _ in 0..<runs {
            let parent = seeds[random.below(seeds.count)]
            let input = mutator.mutate(parent, with: seeds[random.below(seeds.count)])
            #expect(throws: Never.self, "\(input)") { try target.run(input) }
        }
    }

    @Test("some thousand mutated files run without a finding", arguments: FuzzTarget.allCases.filter(\.readsFiles))
    func fileMutations(target: FuzzTarget) throws {
        let kept = try Self.files(in: Self.corpus.appendingPathComponent(target.rawValue))
            .map { Array(try Data(contentsOf: $0)) }
        let seeds = Seeds.inputs(for: target).map(\.bytes) + kept
        var random = SplitMix64(seed: 7)
        var mutator = Mutator(target: target, seed: 7)
        let runs = 2_000
        var accepted = 0
        for _ in 0..<runs {
            let parent = seeds[random.below(seeds.count)]
            let input = mutator.mutate(parent, with: seeds[random.below(seeds.count)])
            do {
                accepted += try target.accepts(input) ? 1 : 0
            } catch {
                Issue.record("\(error) for \(input)")
            }
        }
        // Were all of them refused, what must hold of accepted files would not be looked at.
        #expect(accepted > 0 && accepted < runs, "\(accepted) of \(runs)")
    }

    @Test("seeds are good files, but for those that say otherwise", arguments: FuzzTarget.allCases.filter(\.readsFiles))
    func acceptedSeeds(target: FuzzTarget) throws {
        for seed in Seeds.inputs(for: target) {
            #expect(try target.accepts(seed.bytes) == !seed.name.hasPrefix("refused-"), "\(seed.name)")
        }
    }

    @Test("the corpus is small enough to live in the repository")
    func size() throws {
        var byteCount = 0
        for target in FuzzTarget.allCases {
            for file in try Self.files(in: Self.corpus.appendingPathComponent(target.rawValue)) {
                byteCount += try Data(contentsOf: file).count
            }
        }
        #expect(byteCount < 300 << 10, "\(byteCount) bytes")
    }
}

@Suite("The fuzzer itself")
struct FuzzerTests {
    @Test("the same seed makes the same inputs, another seed makes others")
    func deterministic() {
        let parent = Seeds.inputs(for: .http2Server)[0].bytes
        func inputs(_ seed: UInt64) -> [[UInt8]] {
            var mutator = Mutator(target: .http2Server, seed: seed)
            return (0..<50).map { _ in mutator.mutate(parent, with: parent) }
        }
        #expect(inputs(1) == inputs(1))
        #expect(inputs(1) != inputs(2))
    }

    @Test("a pool keeps only inputs that took a new path")
    func pool() {
        var random = SplitMix64(seed: 1)
        var pool = InputPool(limit: 2)
        #expect(pool.add([1], summary: 1, &random))
        #expect(!pool.add([2], summary: 1, &random))
        #expect(pool.add([3], summary: 2, &random))
        #expect(pool.inputs == [[1], [3]])
        #expect(pool.add([4], summary: 3, &random))
        #expect(pool.inputs.count == 2)
    }

    @Test("every target accepts empty input, zeros and ones", arguments: FuzzTarget.allCases)
    func extremes(target: FuzzTarget) throws {
        for input in [[], [0], [255], [UInt8](repeating: 0, count: 70_000), [UInt8](repeating: 255, count: 300)] {
            #expect(throws: Never.self) { try target.run(input) }
        }
    }
}
