// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import Checkpoints

/// Mapped weights that are compared with their checksums while a service runs.
@Suite struct MappedContentsTests {
    /// What is changed in the weights of a part before it is opened.
    enum Damage: CaseIterable {
        case bit
        case zeroedPage
    }

    /// Matrices far larger than the samples by which parts are told apart.
    private func cut(packed: Bool, _ folder: TemporaryFolder) throws -> String {
        let model = try TemporaryFolder()
        var tiny = TinyModel()
        tiny.configuration.feedForwardWidth = 2_000
        try tiny.write(to: model)
        try CheckpointSharder.shard(
            model: model.path,
            output: "\(folder.path)/out",
            pools: 2,
            packing: packed ? PlainPacking() : nil
        )
        return "\(folder.path)/out/" + (packed ? "pool-1" : "gateway")
    }

    /// Changes one tensor where no sample lies.
    private func damage(_ part: String, _ damage: Damage) throws -> String {
        let checkpoint = try Checkpoint.open(part)
        let tensor = try #require(checkpoint.tensors.values.max { $0.range.count < $1.range.count })
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: tensor.file))
        defer { try? handle.close() }
        let start = UInt64(tensor.range.lowerBound + tensor.range.count / 6)
        try handle.seek(toOffset: start)
        let count = damage == .bit ? 1 : 4096
        let old = try #require(try handle.read(upToCount: count))
        try handle.seek(toOffset: start)
        try handle.write(contentsOf: damage == .bit ? Data(old.map { $0 ^ 0x10 }) : Data(count: old.count))
        return tensor.name
    }

    @Test func wholeWeightsAreComparedInFull() async throws {
        let folder = try TemporaryFolder()
        let part = try Checkpoint.open(try self.cut(packed: true, folder))
        let watch = WeightWatch([part], isCompared: false)
        let comparison = try #require(await watch.compare(pace: .max))
        #expect(comparison.tensors == part.packedNames.count)
        #expect(comparison.bytes == part.tensors.values.reduce(0) { $0 + $1.range.count })
        #expect(watch.failure == nil)
    }

    @Test(arguments: Damage.allCases)
    func damageThatTheStartDoesNotSeeIsFound(damage: Damage) async throws {
        let folder = try TemporaryFolder()
        let path = try self.cut(packed: true, folder)
        let name = try self.damage(path, damage)
        // The start compares samples alone.
        let part = try Checkpoint.open(path)
        let watch = WeightWatch([part], isCompared: false)
        #expect(await watch.compare(pace: .max) == nil)
        let failure = try #require(watch.failure)
        #expect(failure.contains(name) && failure.contains("has the checksum"), "\(failure)")
        #expect(watch.look().isEmpty)
    }

    @Test func aServiceFromDamagedWeightsEndsWithAnError() async throws {
        let folder = try TemporaryFolder()
        let path = try self.cut(packed: true, folder)
        let name = try self.damage(path, .zeroedPage)
        let watch = WeightWatch([try Checkpoint.open(path)], isCompared: false)
        let (stopped, stop) = AsyncStream.makeStream(of: Never.self)
        let error = await #expect(throws: CheckpointError.self) {
            try await watch.during(every: .milliseconds(1)) { _ in
            } onCompared: { _ in
                Issue.record("it is damaged")
            } onFailure: { _ in
                stop.finish()
            } _: {
                for await _ in stopped {}
            }
        }
        #expect(error?.message.contains(name) == true, "\(String(describing: error))")
    }

    @Test func aServiceFromWholeWeightsLearnsThatTheyAre() async throws {
        let folder = try TemporaryFolder()
        let watch = WeightWatch([try Checkpoint.open(try self.cut(packed: true, folder))], isCompared: false)
        let (compared, done) = AsyncStream.makeStream(of: Never.self)
        try await watch.during(every: .seconds(3600)) { _ in
        } onCompared: { _ in
            done.finish()
        } onFailure: {
            Issue.record("\($0)")
        } _: {
            for await _ in compared {}
        }
    }

    @Test func aGatewaysPartIsComparedToo() async throws {
        let folder = try TemporaryFolder()
        let path = try self.cut(packed: false, folder)
        let watch = WeightWatch([try Checkpoint.open(path)], isCompared: true)
        #expect(await watch.compare(pace: .max) != nil)
        // What a disk does to a file leaves its times as they are, so this is what the mapping shows next.
        let name = try self.damage(path, .bit)
        #expect(await watch.compare(pace: .max) == nil)
        #expect(watch.failure?.contains(name) == true, "\(watch.failure ?? "")")
    }

    @Test func aWholeCheckpointHasNothingToCompareWith() async throws {
        let folder = try TemporaryFolder()
        try TinyModel().write(to: folder)
        let watch = WeightWatch([try Checkpoint.open(folder.path)], isCompared: false)
        #expect(await watch.compare(pace: .max) == nil)
        #expect(watch.failure == nil)
    }

    @Test func aCancelledPassEndsAndFindsNothing() async throws {
        let folder = try TemporaryFolder()
        let part = try Checkpoint.open(try self.cut(packed: true, folder))
        let watch = WeightWatch([part], isCompared: false)
        // A byte a second: only the cancellation ends it.
        let task = Task { await watch.compare(pace: 1) }
        task.cancel()
        #expect(await task.value == nil)
        #expect(watch.failure == nil)
    }
}
