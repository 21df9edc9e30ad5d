// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchModel
import SwitchyardTypes
import Synchronization
import TensorKernels
import Testing

@Suite("The model's inputs and weights")
struct ModelInputTests {
    @Test(
        "unknown ids and empty sequences are refused by name",
        arguments: [[], [71], [-1], [3, Int32.max]] as [[Int32]]
    )
    func badTokens(tokens: [Int32]) throws {
        let tiny = try TinyModel()
        var record = RoutingRecord()
        let encoded = try tiny.model.encode([[5]], experts: tiny.experts, record: &record)
        let encodeError = #expect(throws: ModelError.self) {
            try tiny.model.encode([[4, 1], tokens], experts: tiny.experts, record: &record)
        }
        #expect(encodeError?.code == .invalidInput)
        #expect(encodeError?.message.contains("input 1") == true)
        let decodeError = #expect(throws: ModelError.self) {
            try tiny.model.decode(
                [DecoderInput(cache: DecoderCache(encoded[0]), tokens: tokens)],
                experts: tiny.experts,
                record: &record
            )
        }
        #expect(decodeError?.code == .invalidInput)
    }

    @Test("a cache named twice is refused")
    func sharedCache() throws {
        let tiny = try TinyModel()
        var record = RoutingRecord()
        let cache = try DecoderCache(tiny.model.encode([[5]], experts: tiny.experts, record: &record)[0])
        let error = #expect(throws: ModelError.self) {
            try tiny.model.decode(
                [.init(cache: cache, tokens: [0]), .init(cache: cache, tokens: [0])],
                experts: tiny.experts,
                record: &record
            )
        }
        #expect(error?.code == .invalidInput)
        #expect(cache.length == 0)
    }

    @Test("no inputs give no outputs")
    func nothing() throws {
        let tiny = try TinyModel()
        var record = RoutingRecord()
        #expect(try tiny.model.encode([], experts: tiny.experts, record: &record).isEmpty)
        #expect(try tiny.model.decode([], experts: tiny.experts, record: &record).rows == 0)
        #expect(record.routedCount == 0)
    }

    @Test("an untied projection is used as it is, a tied one scales the decoder's output")
    func heads() throws {
        // The same seed gives both models the same weights up to the projection, which comes last.
        let tied = try TinyModel(seed: 5)
        let untied = try TinyModel(["tie_word_embeddings": "false"], seed: 5)
        func states(_ tiny: TinyModel) throws -> (FloatMatrix, FloatMatrix) {
            var record = RoutingRecord()
            let encoded = try tiny.model.encode([[9, 8, 1]], experts: tiny.experts, record: &record)
            let logits = try tiny.model.decode(
                [DecoderInput(cache: DecoderCache(encoded[0]), tokens: [0])],
                experts: tiny.experts,
                options: StepOptions(collectHiddenStates: true),
                record: &record
            )
            return (try #require(record.hiddenStates[.decoder]?.last), logits)
        }
        for (tiny, role, scale) in [(tied, TensorRole.sharedEmbedding, 1 / 20.0.squareRoot()), (untied, .lmHead, 1)] {
            let (hidden, logits) = try states(tiny)
            let view = try Checkpoint.open(tiny.directory).tensor(role)
            view.withUnsafeBytes { bytes in
                for token in 0..<71 {
                    let sum = (0..<20)
                        .reduce(0.0) { sum, k in
                            let weight = bytes.loadUnaligned(fromByteOffset: (token * 20 + k) * 4, as: Float.self)
                            return sum + Double(hidden.row(0)[k]) * Double(weight)
                        }
                    #expect(abs(Double(logits.row(0)[token]) - sum * scale) < 1e-4)
                }
            }
        }
    }

    @Test("a router's bias moves its choices")
    func routerBias() throws {
        let plain = try TinyModel(seed: 6)
        let biased = try TinyModel(["router_bias": "true"], seed: 6)
        var records = [RoutingRecord(), RoutingRecord()]
        var numbers = NumberSource(seed: 7)
        let input = numbers.tokens(60)
        for (index, tiny) in [plain, biased].enumerated() {
            _ = try tiny.model.encode(
                [input],
                experts: tiny.experts,
                options: StepOptions(collectRouting: true),
                record: &records[index]
            )
        }
        #expect(records[0].layers[0].choices != records[1].layers[0].choices)
    }

    @Test("settings that are not implemented are refused", arguments: [("router_dtype", "\"bfloat16\"")])
    func unsupported(field: String, value: String) throws {
        let error = #expect(throws: ModelError.self) {
            try TinyModel([field: value])
        }
        #expect(error?.code == .unsupported)
        #expect(error?.message.contains(field) == true)
    }

    @Test(
        "the activation is the configuration's, in dense layers and in experts",
        arguments: ["gelu", "gelu_new", "silu"]
    )
    func activations(name: String) throws {
        let rectified = try TinyModel(seed: 12)
        let other = try TinyModel(["dense_act_fn": "\"\(name)\""], seed: 12)
        let layer = SparseLayer(stack: .encoder, block: 1)
        let tokens = FloatMatrix(rows: 1, columns: 20)
        tokens.pointer[3] = 2
        let outputs = [FloatMatrix(rows: 1, columns: 20), FloatMatrix(rows: 1, columns: 20)]
        for (tiny, output) in zip([rectified, other], outputs) {
            try tiny.experts.forward(
                layer: layer,
                groups: [.init(expert: 0, rows: 1)],
                tokens: tokens.pointer,
                outputs: output.pointer
            )
        }
        #expect(outputs[0].bits != outputs[1].bits)
        var records = [RoutingRecord(), RoutingRecord()]
        let options = StepOptions(collectHiddenStates: true)
        for (index, tiny) in [rectified, other].enumerated() {
            _ = try tiny.model.encode([[4, 5, 1]], experts: tiny.experts, options: options, record: &records[index])
        }
        // Block 0 is dense.
        #expect(records[0].hiddenStates[.encoder]?[1].bits != records[1].hiddenStates[.encoder]?[1].bits)
    }

    @Test("loading reports its progress up to the end")
    func progress() throws {
        let tiny = try TinyModel()
        let checkpoint = try Checkpoint.open(tiny.directory)
        let pool = WorkPool(threads: 1)
        let seen = Mutex<[WorkProgress]>([])
        _ = try SwitchTransformer(checkpoint: checkpoint, pool: pool) { step in seen.withLock { $0.append(step) } }
        var steps = seen.withLock { $0 }
        #expect(steps.map(\.completed) == Array(1...steps.count))
        #expect(steps.last?.fraction == 1)
        seen.withLock { $0 = [] }
        _ = try LocalExperts(checkpoint: checkpoint, pool: pool) { step in seen.withLock { $0.append(step) } }
        steps = seen.withLock { $0 }
        #expect(steps.count == 3 * 5 * 2)
        #expect(steps.last?.fraction == 1)
    }
}
