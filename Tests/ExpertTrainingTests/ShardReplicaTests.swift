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

@Suite("A training host's replica")
struct ShardReplicaTests {
    static let json = """
        {"model_type": "switch_transformers", "vocab_size": 150, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2,
         "num_layers": 2, "num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1,
         "num_experts": 4, "expert_capacity": 64, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
         "feed_forward_proj": "relu", "tie_word_embeddings": true}
        """
    static let session = TrainingSession(run: 7, trainer: 8)

    private static var plan: ShardPlan {
        get throws {
            var settings = TrainingSettings()
            settings.expertDropout = 0.25
            return ShardPlan(
                held: [
                    .init(SparseLayer(stack: .encoder, block: 1), [1, 3]),
                    .init(SparseLayer(stack: .decoder, block: 1), [0]),
                ],
                optimizer: .adamW(.init()),
                settings: settings
            )
        }
    }

    private static func openRequest(
        _ session: TrainingSession = Self.session,
        change: (String) -> String = { $0 }
    ) throws -> OpenShardRequest {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        let plan = String(decoding: try encoder.encode(try Self.plan), as: UTF8.self)
        return OpenShardRequest(
            session: session,
            configuration: Array(Self.json.utf8),
            plan: Array(change(plan).utf8),
            shard: "pool-0"
        )
    }

    /// A state with numbers that are not zeros.
    private static func state() throws -> [UInt8] {
        let configuration = try ModelConfiguration.load(contents: Array(Self.json.utf8), name: "test")
        let shard = try ExpertShard(configuration, plan: try Self.plan, pool: WorkPool(threads: 1))
        for (index, value) in shard.weights.all.indices.enumerated() {
            shard.weights.all[value] = Float(index % 13) / 13 - 0.4
        }
        return try shard.stateBytes()
    }

    /// A replica at step 3.
    private static func loaded(folder: String? = nil) throws -> ShardReplica {
        let replica = ShardReplica(pool: WorkPool(threads: 2), folder: folder)
        #expect(try replica.open(try Self.openRequest()).isLoaded == false)
        let state = try Self.state()
        for start in stride(from: 0, to: state.count, by: 1000) {
            let piece = Array(state[start..<min(state.count, start + 1000)])
            _ = try replica.store(StoreStateRequest(session: Self.session, offset: UInt64(start), piece: piece))
        }
        let answer = try replica.load(LoadStateRequest(session: Self.session, step: 3))
        #expect(answer.step == 3 && answer.isLoaded && answer.checksum != 0)
        return replica
    }

    static func rows(_ count: Int, seed: Int = 1) -> FloatMatrix {
        let matrix = FloatMatrix(rows: count, columns: 16)
        for index in 0..<count * 16 { matrix.pointer[index] = Float((index * 7 + seed) % 11) / 11 - 0.5 }
        return matrix
    }

    static func envelope(
        record: Int = 0,
        step: Int = 3,
        attempt: Int = 0,
        session: TrainingSession = Self.session,
        isReplay: Bool = false,
        change: (inout TrainingRowsEnvelope) -> Void = { _ in }
    ) -> TrainingRowsEnvelope {
        var envelope = TrainingRowsEnvelope(
            rows: ForwardRequestEnvelope(
                modelFingerprint: session.run,
                stack: .encoder,
                layer: 1,
                groups: [ExpertRowsMessage(expert: 1, rows: 2), ExpertRowsMessage(expert: 3, rows: 1)],
                tokensShape: [6, 16]
            ),
            trainer: session.trainer,
            step: UInt64(step),
            attempt: UInt32(attempt),
            record: UInt64(record),
            places: (0..<3).flatMap { [UInt8($0), 0, 0, 0, 5, 0, 0, 0] },
            isReplay: isReplay
        )
        change(&envelope)
        return envelope
    }

    private static func backward(_ replica: ShardReplica, _ envelope: TrainingRowsEnvelope) throws -> [UInt32]? {
        let gradients = try replica.backward(envelope, tokens: Self.rows(3), outputGradients: Self.rows(3, seed: 4))
        return gradients.map { matrix in (0..<48).map { matrix.pointer[$0].bitPattern } }
    }

    private static func apply(_ replica: ShardReplica, records: Int, step: Int = 3) throws -> UInt64 {
        try replica.apply(
            ApplyStepRequest(
                session: Self.session,
                step: UInt64(step),
                records: UInt64(records),
                learningRate: 0.1,
                gradientScale: 0.5
            )
        )
        .checksum
    }

    @Test(
        "A call that comes twice is answered twice and counts once, and a replay gives the same state without answers"
    )
    func once() throws {
        let (one, two) = (try Self.loaded(), try Self.loaded())
        let first = try Self.backward(one, Self.envelope())
        #expect(try Self.backward(one, Self.envelope()) == first)
        _ = try Self.backward(one, Self.envelope(record: 1))
        #expect(try Self.backward(one, Self.envelope()) == first)
        let sizes = try one.prepare(PrepareStepRequest(session: Self.session, step: 3, records: 2))
        #expect(sizes.touched.count == 4 && sizes.squares.count == 6)
        #expect(sizes.squares.contains { $0 > 0 })

        #expect(try Self.backward(two, Self.envelope(isReplay: true)) == nil)
        #expect(try Self.backward(two, Self.envelope(record: 1, isReplay: true)) == nil)
        let checksum = try Self.apply(one, records: 2)
        #expect(try Self.apply(two, records: 2) == checksum)
        #expect(try Self.apply(two, records: 2) == checksum)
        #expect(try two.open(try Self.openRequest()).step == 4)
    }

    @Test("Another attempt has nothing of the one before")
    func attempts() throws {
        let (one, two) = (try Self.loaded(), try Self.loaded())
        _ = try Self.backward(one, Self.envelope())
        _ = try Self.backward(one, Self.envelope(record: 1))
        _ = try Self.backward(one, Self.envelope(attempt: 1))
        _ = try Self.backward(two, Self.envelope())
        func apply(_ replica: ShardReplica, _ attempt: Int) throws -> UInt64 {
            try replica.apply(
                ApplyStepRequest(
                    session: Self.session,
                    step: 3,
                    attempt: UInt32(attempt),
                    records: 1,
                    learningRate: 0.1,
                    gradientScale: 1
                )
            )
            .checksum
        }
        #expect(try apply(one, 1) == apply(two, 0))
    }

    @Test("Weights that change by themselves are noticed before the step ends, and nothing of them is kept")
    func flipped() throws {
        let replica = try Self.loaded()
        _ = try Self.backward(replica, Self.envelope())
        let weights = try #require(replica.current).shard.weights
        weights.all[40] = Float(bitPattern: weights.all[40].bitPattern ^ 1)
        let error = #expect(throws: RPCError.self) {
            try replica.prepare(PrepareStepRequest(session: Self.session, step: 3, records: 1))
        }
        #expect(error?.code == .dataLoss)
        #expect(error?.message.contains("changed by themselves") == true)
        #expect(try replica.open(try Self.openRequest()).isLoaded == false)
        let after = #expect(throws: RPCError.self) { try Self.backward(replica, Self.envelope()) }
        #expect(after?.message.contains("call Load first") == true)
    }

    @Test("Weights that change between a step's gradients and its new weights are noticed too")
    func flippedLate() throws {
        let replica = try Self.loaded()
        _ = try Self.backward(replica, Self.envelope())
        _ = try replica.prepare(PrepareStepRequest(session: Self.session, step: 3, records: 1))
        let weights = try #require(replica.current).shard.weights
        weights.all[40] = Float(bitPattern: weights.all[40].bitPattern ^ 1)
        let error = #expect(throws: RPCError.self) { try Self.apply(replica, records: 1) }
        #expect(error?.code == .dataLoss)
        #expect(try replica.open(try Self.openRequest()).isLoaded == false)
    }

    @Test("Calls that do not fit are refused in words, and change nothing")
    func refusals() throws {
        let replica = try Self.loaded()
        let before = try replica.open(try Self.openRequest())
        for (words, envelope) in [
            ("another run", Self.envelope(session: TrainingSession(run: 1, trainer: 8))),
            ("another trainer", Self.envelope(session: TrainingSession(run: 7, trainer: 1))),
            ("step 2", Self.envelope(step: 2)), ("number 1", Self.envelope(record: 1)),
            ("not held here", Self.envelope { $0.rows.groups[0].expert = 0 }),
            ("no expert of decoder 0", Self.envelope { ($0.rows.stack, $0.rows.layer) = (.decoder, 0) }),
            ("stack is not given", Self.envelope { $0.rows.stack = .unspecified }),
            ("ascending", Self.envelope { $0.rows.groups.reverse() }),
            ("places", Self.envelope { $0.places = Array($0.places.prefix(8)) }),
        ] {
            let error = #expect(throws: RPCError.self) { try Self.backward(replica, envelope) }
            #expect(error?.message.contains(words) == true, "\(words): \(error?.message ?? "")")
        }
        #expect(try replica.open(try Self.openRequest()) == before)
        for (words, request) in [
            ("must not be 0", OpenShardRequest(session: TrainingSession(run: 0, trainer: 1))),
            ("plan", OpenShardRequest(session: Self.session, configuration: Array(Self.json.utf8), plan: [1, 2])),
            (
                "plan: held.1.block: is no Int",
                try Self.openRequest {
                    $0.replacing("\"block\":1,\"experts\":[0]", with: "\"block\":\"x\",\"experts\":[0]")
                }
            ),
            ("plan: optimizer is missing", try Self.openRequest { $0.replacing("\"optimizer\"", with: "\"other\"") }),
            ("plan: precision: ", try Self.openRequest { $0.replacing("float32", with: "float8") }),
            ("JSON", OpenShardRequest(session: Self.session, configuration: [1], plan: try Self.openRequest().plan)),
        ] {
            let error = #expect(throws: RPCError.self) { try replica.open(request) }
            #expect(
                error?.code == .invalidArgument && error?.message.contains(words) == true,
                "\(error?.message ?? "")"
            )
        }
    }

    @Test("A shard that is larger than the machine's memory is refused with both sizes")
    func memory() throws {
        let replica = ShardReplica(pool: WorkPool(threads: 1), folder: nil, memory: 1000)
        let error = #expect(throws: RPCError.self) { try replica.open(try Self.openRequest()) }
        #expect(error?.message.contains("but this machine has 1000; divide the experts") == true)
    }

    @Test("A state that comes in pieces must be whole, in order, and the one that it says it is")
    func pieces() throws {
        let replica = ShardReplica(pool: WorkPool(threads: 1), folder: nil)
        _ = try replica.open(try Self.openRequest())
        let state = try Self.state()
        func store(_ offset: Int, _ count: Int) throws {
            let piece = Array(state.prefix(count))
            _ = try replica.store(StoreStateRequest(session: Self.session, offset: UInt64(offset), piece: piece))
        }
        try store(0, 100)
        let gap = #expect(throws: RPCError.self) { try store(101, 10) }
        #expect(gap?.message.contains("begin again at 0") == true)
        #expect(throws: RPCError.self) { try store(100, state.count) }
        let short = #expect(throws: RPCError.self) {
            try replica.load(LoadStateRequest(session: Self.session, step: 1))
        }
        #expect(short?.message.contains("is 100 bytes") == true)
        try store(0, state.count)
        let other = #expect(throws: RPCError.self) {
            try replica.load(LoadStateRequest(session: Self.session, step: 1, checksum: 5))
        }
        #expect(other?.code == .dataLoss)
        #expect(try replica.open(try Self.openRequest()).isLoaded == false)
    }

    @Test("Snapshots come back from the disk; torn, damaged and missing ones are refused, and only the newest stay")
    func snapshots() throws {
        let root = NSTemporaryDirectory() + "shard-snapshots-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: root) }
        try SnapshotFolder.makeRoot(root)
        let replica = try Self.loaded(folder: root)
        var sums: [Int: UInt64] = [:]
        for step in 3..<7 {
            let (answer, write) = try replica.snapshot(SnapshotRequest(session: Self.session, step: UInt64(step)))
            #expect(write?() == nil)
            sums[step] = answer.checksum
            if step == 4 {
                let piece = try replica.fetch(
                    FetchStateRequest(session: Self.session, step: 4, offset: 5, bytes: 7)
                )
                #expect(piece.piece.count == 7)
                #expect(throws: RPCError.self) {
                    try replica.fetch(FetchStateRequest(session: Self.session, step: 3, offset: 0, bytes: 7))
                }
            }
            _ = try Self.backward(replica, Self.envelope(step: step))
            _ = try Self.apply(replica, records: 1, step: step)
        }
        let other = ShardReplica(pool: WorkPool(threads: 1), folder: root)
        #expect(try other.open(try Self.openRequest()).snapshots == [5, 6])
        let answer = try other.load(
            LoadStateRequest(session: Self.session, step: 6, isOnDisk: true, checksum: try #require(sums[6]))
        )
        #expect(answer.checksum == sums[6] && answer.step == 6)
        let files = try FileManager.default.subpathsOfDirectory(atPath: root).filter { $0.hasSuffix(".state") }.sorted()
        let paths = files.map { "\(root)/\($0)" }
        var torn = try #require(FileManager.default.contents(atPath: paths[0]))
        _ = FileManager.default.createFile(atPath: paths[0], contents: torn.prefix(torn.count / 2))
        torn = try #require(FileManager.default.contents(atPath: paths[1]))
        torn[torn.count - 3] ^= 4
        _ = FileManager.default.createFile(atPath: paths[1], contents: torn)
        #expect(try other.open(try Self.openRequest()).snapshots == [6])
        for step in [5, 6, 9] {
            let error = #expect(throws: RPCError.self) {
                try other.load(LoadStateRequest(session: Self.session, step: UInt64(step), isOnDisk: true))
            }
            #expect(error?.code == .notFound)
        }
    }
}
