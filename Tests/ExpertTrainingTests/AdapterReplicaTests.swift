// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import Foundation
import RPCCore
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import TensorKernels
import Testing

@testable import ExpertTraining
@testable import SwitchTraining

@Suite("A training host's replica of an adapter")
struct AdapterReplicaTests {
    private static let session = ShardReplicaTests.session

    /// A checkpoint, and a shard of it whose adapter is trained.
    private final class Model {
        let folder: String
        let checkpoint: Checkpoint
        let plan: ShardPlan
        let base: ShardBase

        init(rank: Int = 2, seed: UInt32 = 1) throws {
            self.folder = NSTemporaryDirectory() + "adapter-replica-\(UUID().uuidString)"
            try FileManager.default.createDirectory(atPath: self.folder, withIntermediateDirectories: true)
            try ShardReplicaTests.json.write(toFile: self.folder + "/config.json", atomically: true, encoding: .utf8)
            let configuration = try ModelConfiguration.load(directory: self.folder)
            let weights = ParameterBuffer(layout: try ParameterLayout(configuration))
            for index in weights.layout.entries.indices {
                for place in weights[index].indices {
                    weights[index][place] = Float((UInt32(place) &* 2_654_435_761 &+ seed) % 17) / 17 - 0.45
                }
            }
            try SafetensorsWriter.write(try weights.tensors(), to: self.folder + "/model.safetensors")
            self.checkpoint = try Checkpoint.open(self.folder)
            var settings = LowRankSettings()
            (settings.rank, settings.targets) = (rank, ["experts.expert_1.wi", "experts.expert_3.wo", "q"])
            self.plan = ShardPlan(
                held: [
                    .init(SparseLayer(stack: .encoder, block: 1), [1, 3]),
                    .init(SparseLayer(stack: .decoder, block: 1), [0]),
                ],
                optimizer: .adamW(.init()),
                settings: TrainingSettings(),
                adapter: ShardPlan.Adapter(settings, base: self.checkpoint.fingerprint)
            )
            self.base = try ShardBase(self.checkpoint, plan: self.plan)
        }

        deinit { try? FileManager.default.removeItem(atPath: self.folder) }

        func openRequest(_ plan: ShardPlan? = nil, checksum: UInt64? = nil) throws -> OpenShardRequest {
            let encoder = JSONEncoder()
            encoder.outputFormatting = .sortedKeys
            return OpenShardRequest(
                session: AdapterReplicaTests.session,
                configuration: Array(ShardReplicaTests.json.utf8),
                plan: [UInt8](try encoder.encode(plan ?? self.plan)),
                shard: "pool-0",
                baseChecksum: checksum ?? self.base.checksum
            )
        }

        /// A state whose B is not zeros.
        func state() throws -> [UInt8] {
            let shard = try ExpertShard(self.checkpoint.configuration, plan: self.plan, pool: WorkPool(threads: 1))
            for (place, value) in shard.trained.all.indices.enumerated() {
                shard.trained.all[value] = Float(place % 13) / 13 - 0.4
            }
            return try shard.stateBytes()
        }

        func storeBase(_ replica: ShardReplica) throws {
            for start in stride(from: 0, to: self.base.byteCount, by: 1000) {
                let piece = try self.base.piece(at: start, upTo: 1000)
                let request = StoreStateRequest(
                    session: AdapterReplicaTests.session,
                    offset: UInt64(start),
                    piece: piece,
                    isBase: true
                )
                let answer = try replica.store(request)
                #expect(answer.needsBase == (start + piece.count < self.base.byteCount))
            }
        }

        func load(_ replica: ShardReplica) throws {
            let piece = try self.state()
            _ = try replica.store(StoreStateRequest(session: AdapterReplicaTests.session, offset: 0, piece: piece))
            let answer = try replica.load(LoadStateRequest(session: AdapterReplicaTests.session, step: 3))
            #expect(answer.isLoaded && answer.stateBytes == UInt64(piece.count))
        }

        /// A replica at step 3 that got all from its trainer.
        func loaded(folder: String? = nil) throws -> ShardReplica {
            let replica = ShardReplica(pool: WorkPool(threads: 2), folder: folder)
            let answer = try replica.open(try self.openRequest())
            #expect(answer.needsBase && answer.baseBytes == UInt64(self.base.byteCount) && !answer.isLoaded)
            try self.storeBase(replica)
            try self.load(replica)
            return replica
        }
    }

    private static func backward(_ replica: ShardReplica) throws {
        _ = try replica.backward(
            ShardReplicaTests.envelope(),
            tokens: ShardReplicaTests.rows(3),
            outputGradients: ShardReplicaTests.rows(3, seed: 4)
        )
    }

    private static func prepare(_ replica: ShardReplica) throws -> PrepareStepResponse {
        try replica.prepare(PrepareStepRequest(session: Self.session, step: 3, records: 1))
    }

    private static func apply(_ replica: ShardReplica) throws -> UInt64 {
        try replica.apply(
            ApplyStepRequest(session: Self.session, step: 3, records: 1, learningRate: 0.1, gradientScale: 0.5)
        )
        .checksum
    }

    @Test(
        "A step changes the adapter alone, with or without its sizes asked for, and a copy has no more than the adapter"
    )
    func step() throws {
        let model = try Model()
        let (one, two) = (try model.loaded(), try model.loaded())
        let before = try #require(one.current).shard.weights[0].map { $0 }
        for replica in [one, two] { try Self.backward(replica) }
        let sizes = try Self.prepare(one)
        // A and B of two matrices, each of which got a gradient.
        #expect(sizes.squares.count == 4 && sizes.touched == [0, 1, 2, 3] && sizes.squares.allSatisfy { $0 > 0 })
        #expect(try Self.prepare(one) == sizes)
        // A replica that repeats the log is not asked for sizes.
        #expect(try Self.apply(one) == Self.apply(two))
        let shard = try #require(one.current).shard
        #expect(shard.hasSoundWeights() && shard.weights[0].map { $0 } != before)
        let (copy, _) = try one.snapshot(SnapshotRequest(session: Self.session, step: 4))
        // 160 elements with two moments each, and four counts of steps.
        #expect(copy.stateBytes == 1952)
    }

    @Test(
        "The weights below the adapter come before a state, whole and as the run says, or from a shard on this machine"
    )
    func base() throws {
        let model = try Model()
        let replica = ShardReplica(pool: WorkPool(threads: 1), folder: nil)
        _ = try replica.open(try model.openRequest())
        let early = #expect(throws: RPCError.self) { try model.load(replica) }
        #expect(early?.code == .failedPrecondition && early?.message.contains("below the adapter") == true)
        func store(_ offset: Int, _ piece: [UInt8]) throws {
            let session = Self.session
            _ = try replica.store(
                StoreStateRequest(session: session, offset: UInt64(offset), piece: piece, isBase: true)
            )
        }
        var bytes = try model.base.piece(at: 0, upTo: model.base.byteCount)
        for (offset, count) in [(4, 8), (0, 6)] {
            let error = #expect(throws: RPCError.self) { try store(offset, Array(bytes.prefix(count))) }
            #expect(error?.message.contains("begin again at 0") == true)
        }
        #expect(throws: RPCError.self) { try store(0, bytes + [0, 0, 0, 0]) }
        bytes[77] ^= 2
        let other = #expect(throws: RPCError.self) { try store(0, bytes) }
        #expect(other?.code == .dataLoss && other?.message.contains("another checksum") == true)
        #expect(try replica.open(try model.openRequest()).needsBase)
        bytes[77] ^= 2
        try store(0, bytes)
        try model.load(replica)

        let own = ShardReplica(pool: WorkPool(threads: 1), folder: nil, bases: [model.checkpoint])
        #expect(try own.open(try model.openRequest()).needsBase == false)
        try model.load(own)
        for replica in [replica, own] { try Self.backward(replica) }
        #expect(try Self.prepare(replica) == Self.prepare(own))
    }

    @Test(
        "A host whose shard is another checkpoint's, or for another mode, says so, and a state of another rank is refused"
    )
    func refusals() throws {
        let (model, other) = (try Model(), try Model(rank: 3, seed: 5))
        let host = ShardReplica(pool: WorkPool(threads: 1), folder: nil, bases: [other.checkpoint])
        var full = model.plan
        full.adapter = nil
        for (plan, words) in [
            (model.plan, "from the checkpoint \(Fingerprint.text(other.checkpoint.fingerprint))"),
            (model.plan, "began with \(Fingerprint.text(model.checkpoint.fingerprint))"), (full, "trains all weights"),
        ] {
            let error = #expect(throws: RPCError.self) { try host.open(try model.openRequest(plan)) }
            #expect(
                error?.code == .failedPrecondition && error?.message.contains(words) == true,
                "\(error?.message ?? "")"
            )
        }
        // The fingerprint samples the weights; the checksum covers all of them.
        let wrong = ShardReplica(pool: WorkPool(threads: 1), folder: nil, bases: [model.checkpoint])
        let error = #expect(throws: RPCError.self) { try wrong.open(try model.openRequest(checksum: 5)) }
        #expect(error?.message.contains("other weights than the run's checkpoint") == true, "\(error?.message ?? "")")

        let replica = try model.loaded()
        _ = try replica.store(StoreStateRequest(session: Self.session, offset: 0, piece: [1, 2, 3, 4]))
        let short = #expect(throws: RPCError.self) {
            try replica.load(LoadStateRequest(session: Self.session, step: 3))
        }
        #expect(short?.message.contains("another shard's state") == true)
        #expect(throws: RPCError.self) {
            try replica.store(StoreStateRequest(session: Self.session, offset: 0, piece: try other.state()))
        }
        // Another rank, or another mode, is another run's: nothing of the old one is used.
        var wide = model.plan
        wide.adapter?.settings.rank = 3
        let opened = try replica.open(try model.openRequest(wide))
        #expect(!opened.isLoaded && opened.needsBase)
        #expect(try replica.open(try model.openRequest(full)).needsBase == false)
        let none = #expect(throws: RPCError.self) { try model.storeBase(replica) }
        #expect(none?.message.contains("the run has no adapter") == true)
    }

    @Test("Memory that changes by itself is noticed, below the adapter too, and all comes again")
    func flipped() throws {
        let model = try Model()
        for part in 0..<3 {
            let replica = try model.loaded()
            try Self.backward(replica)
            let shard = try #require(replica.current).shard
            let adapter = try #require(shard.adapter)
            let changed = try #require(adapter.targets.firstIndex(of: true))
            let memory = [shard.trained[1], shard.weights[changed], try #require(adapter.base[changed])][part]
            memory[5] = Float(bitPattern: memory[5].bitPattern ^ 1)
            let error = #expect(throws: RPCError.self) { try Self.prepare(replica) }
            #expect(error?.code == .dataLoss)
            let state = try replica.open(try model.openRequest())
            #expect(!state.isLoaded && state.needsBase)
            try model.storeBase(replica)
            try model.load(replica)
            try Self.backward(replica)
            _ = try Self.prepare(replica)
        }
    }

    @Test("Snapshots are of the adapter, and go on after a restart once the weights below it are there")
    func snapshots() throws {
        let model = try Model()
        let root = NSTemporaryDirectory() + "adapter-snapshots-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: root) }
        try SnapshotFolder.makeRoot(root)
        let replica = try model.loaded(folder: root)
        let (answer, write) = try replica.snapshot(SnapshotRequest(session: Self.session, step: 3))
        #expect(write?() == nil)
        let other = ShardReplica(pool: WorkPool(threads: 1), folder: root)
        let opened = try other.open(try model.openRequest())
        #expect(opened.snapshots == [3] && opened.needsBase)
        let request = LoadStateRequest(session: Self.session, step: 3, isOnDisk: true, checksum: answer.checksum)
        #expect(throws: RPCError.self) { try other.load(request) }
        try model.storeBase(other)
        #expect(try other.load(request).checksum == answer.checksum)
        for replica in [replica, other] { try Self.backward(replica) }
        #expect(try Self.apply(replica) == Self.apply(other))
    }
}
