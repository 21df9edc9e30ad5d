// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwitchyardTypes
import Testing

@testable import Checkpoints

/// LoRA adapters merged into a model's tensors, beside what peft's `merge_and_unload` gives.
@Suite("Adapters")
struct AdapterTests {
    static let fixtures = Repository.root + "/Tests/Fixtures"
    static let plain = "\(fixtures)/cases/plain"
    static let cases = ((try? FileManager.default.contentsOfDirectory(atPath: "\(fixtures)/adapters")) ?? []).sorted()

    /// A folder with a case's model, and its adapter in `adapter`.
    private func assemble(_ name: String) throws -> TemporaryFolder {
        let folder = try TemporaryFolder()
        let files = FileManager.default
        for source in [Self.plain, "\(Self.fixtures)/adapters/\(name)"] {
            for file in try files.contentsOfDirectory(atPath: source)
            where !["case.json", "merged.safetensors"].contains(file) {
                try? files.removeItem(atPath: "\(folder.path)/\(file)")
                try files.copyItem(atPath: "\(source)/\(file)", toPath: "\(folder.path)/\(file)")
            }
        }
        return folder
    }

    private func open(_ folder: TemporaryFolder, _ overrides: [String: String] = [:]) throws -> Checkpoint {
        try Checkpoint.open(folder.path, overrides: overrides, adapter: "\(folder.path)/adapter")
    }

    /// The values of an adapter's configuration, replaced by a closure.
    private func edit(_ folder: TemporaryFolder, _ change: (inout [String: Any]) -> Void) throws {
        let bytes = try Repository.bytes("\(folder.path)/adapter/adapter_config.json")
        var values = try #require(JSONSerialization.jsonObject(with: Data(bytes)) as? [String: Any])
        change(&values)
        try folder.write([UInt8](JSONSerialization.data(withJSONObject: values)), to: "adapter/adapter_config.json")
    }

    /// An adapter's tensors, replaced by a closure.
    private func editTensors(_ folder: TemporaryFolder, _ change: (inout [TensorView]) throws -> Void) throws {
        let path = "\(folder.path)/adapter/adapter_model.safetensors"
        var tensors = try SafetensorsReader.read(path).map { $0.view() }
        try change(&tensors)
        try FileManager.default.removeItem(atPath: path)
        try SafetensorsWriter.write(tensors, to: path)
    }

    // MARK: - Numbers

    @Test("merged tensors are those of peft, but for the last bits of float32 sums", arguments: cases)
    func numbers(name: String) throws {
        let folder = try self.assemble(name)
        let overrides = name == "saved-head" ? ["tie_word_embeddings": "false", "scale_decoder_outputs": "true"] : [:]
        let checkpoint = try self.open(folder, overrides)
        try checkpoint.validate()
        for wanted in try SafetensorsReader.read("\(Self.fixtures)/adapters/\(name)/merged.safetensors") {
            let found = try #require(checkpoint.tensors[wanted.name], "\(wanted.name)")
            #expect(found.dtype == wanted.dtype && found.shape == wanted.shape)
            let (left, right) = (found.view(), wanted.view())
            var differing = 0
            left.withUnsafeBytes { left in
                right.withUnsafeBytes { right in
                    for index in 0..<found.shape.reduce(1, *) {
                        let (value, reference) = (found.dtype.double(left, index), wanted.dtype.double(right, index))
                        guard value != reference else { continue }
                        differing += 1
                        // float32: the order of a sum. 16 bits: a neighbour, where the sum lies near the middle.
                        let step: Double =
                            switch found.dtype {
                            case .float64: 1e-14
                            case .float32: 1e-6
                            case .float16: 0x1p-10
                            default: 0x1p-7
                            }
                        #expect(abs(value - reference) <= step * max(1, abs(reference)), "\(wanted.name) \(index)")
                    }
                }
            }
            if found.dtype.byteCount == 2 { #expect(differing * 100 <= found.shape.reduce(1, *), "\(wanted.name)") }
        }
    }

    @Test(
        "a fingerprint samples a merged tensor as it would the computed one",
        arguments: ["embedding", "linear-float32"]
    )
    func sampled(name: String) throws {
        let folder = try self.assemble(name)
        let checkpoint = try self.open(folder)
        var large = 0
        for (name, tensor) in checkpoint.tensors where tensor.update != nil {
            let view = tensor.view()
            let computed = StoredTensor(
                name: name,
                dtype: view.dtype,
                shape: view.shape,
                storage: view.storage,
                range: view.range,
                strides: nil,
                file: ""
            )
            #expect(Fingerprint.digest(tensor) == Fingerprint.digest(computed), "\(name)")
            large += view.byteCount > Fingerprint.blockBytes * Fingerprint.blocks ? 1 : 0
            let update = try #require(tensor.update)
            // Blocks need not begin with an element.
            for range in [0..<7, 3..<view.byteCount - 1, 5..<6] {
                #expect(update.bytes(of: tensor, [range]) == [Array(view.bytes[range])])
            }
        }
        #expect(name != "embedding" || large > 0)
    }

    @Test("numbers are rounded to bfloat16 and float16 as torch rounds them")
    func rounding() {
        for bits in UInt16.min...UInt16.max {
            let half = DType.widened(bits)
            if !half.isNaN { #expect(DType.float16Bits(half) == bits) }
            let brain = Float(bitPattern: UInt32(bits) << 16)
            if !brain.isNaN { #expect(DType.bfloat16Bits(brain) == bits) }
            // Halfway to the next one: to the even one of the two.
            guard bits & 0x7FFF < 0x7BFF else { continue }
            let middle = (half + DType.widened(bits + 1)) / 2
            #expect(DType.float16Bits(middle) == (bits % 2 == 0 ? bits : bits + 1))
            #expect(DType.float16Bits(middle.sign == .plus ? middle.nextUp : middle.nextDown) == bits + 1)
            let between = Float(bitPattern: UInt32(bits) << 16 | 0x8000)
            #expect(DType.bfloat16Bits(between) == (bits % 2 == 0 ? bits : bits + 1))
        }
        #expect(DType.float16Bits(65_519.99) == 0x7BFF && DType.float16Bits(65_520) == 0x7C00)
        #expect(DType.float16Bits(-1e9) == 0xFC00 && DType.float16Bits(1e-9) == 0)
        #expect(DType.widened(DType.float16Bits(.nan)).isNaN)
        #expect(Float(bitPattern: UInt32(DType.bfloat16Bits(.nan)) << 16).isNaN)
    }

    // MARK: - Cutting

    @Test(
        "a cut with an adapter holds the merged weights, and says so",
        arguments: ["linear", "embedding", "patterns"]
    )
    func cut(name: String) throws {
        let folder = try self.assemble(name)
        let output = try TemporaryFolder()
        var notes: [String] = []
        let placement = try CheckpointSharder.shard(
            model: folder.path,
            output: "\(output.path)/cut",
            pools: 2,
            adapter: "\(folder.path)/adapter",
            note: { notes.append($0) }
        )
        let merged = try self.open(folder)
        #expect(placement.fingerprintValue == merged.fingerprint)
        #expect(merged.fingerprint != (try Checkpoint.open(folder.path)).fingerprint)
        #expect(placement.source.hasSuffix(" + adapter"))
        #expect(notes.contains { $0.contains("merged an adapter of rank") })
        #expect(notes.contains { $0.contains("shared is one tensor with") } == (name == "embedding"))
        for part in ["gateway", "pool-0", "pool-1"] {
            let opened = try Checkpoint.open("\(output.path)/cut/\(part)")
            try opened.validate()
            for (name, tensor) in opened.tensors {
                #expect(tensor.view().bytes == merged.tensors[name]?.view().bytes, "\(name)")
            }
        }
        let error = failure { _ = try Checkpoint.open("\(output.path)/cut/gateway", adapter: "\(folder.path)/adapter") }
        #expect(error?.code == .invalidArgument && error?.message.contains("when the whole one is cut") == true)
    }

    // MARK: - Refusals

    @Test("an adapter beside a model is merged when it is named, and else refused with the flag's name")
    func beside() throws {
        let folder = try self.assemble("linear")
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            try FileManager.default.copyItem(atPath: "\(folder.path)/adapter/\(file)", toPath: "\(folder.path)/\(file)")
        }
        let error = failure { _ = try Checkpoint.open(folder.path) }
        #expect(error?.file == "\(folder.path)/adapter_config.json")
        #expect(error?.message.contains("--merge-adapter \(folder.path)") == true)
        // Another one does not stand in for it.
        #expect(failure { _ = try self.open(folder) }?.file == "\(folder.path)/adapter_config.json")
        let merged = try Checkpoint.open(folder.path, adapter: "\(folder.path)/./")
        #expect(merged.adapter != nil)
    }

    @Test("a folder with an adapter alone is refused with its base model and the command")
    func alone() throws {
        let folder = try self.assemble("linear")
        let error = failure { _ = try Checkpoint.open("\(folder.path)/adapter") }
        #expect(
            error?.message.contains("switchyard up tiny/plain --merge-adapter \(folder.path)/adapter") == true,
            "\(error?.description ?? "")"
        )
        let reverse = failure { _ = try Checkpoint.open(folder.path, adapter: Self.plain) }
        #expect(reverse?.file == Self.plain && reverse?.message.contains("adapter_config.json") == true)
    }

    @Test("a tokenizer beside the adapter that is not the model's is mentioned")
    func tokenizer() throws {
        let folder = try self.assemble("linear")
        try folder.write(try Repository.bytes("\(folder.path)/spiece.model"), to: "adapter/spiece.model")
        #expect(try self.open(folder).adapter?.notes.count == 1)
        try folder.write([1, 2, 3], to: "adapter/spiece.model")
        let notes = try #require(try self.open(folder).adapter?.notes)
        #expect(notes.count == 2 && notes[1].contains("spiece.model"))
    }

    @Test(
        "settings that change what an adapter does are refused with key and value",
        arguments: [
            ("peft_type", #""IA3""#), ("bias", #""lora_only""#), ("use_dora", "true"), ("lora_bias", "true"),
            ("use_qalora", "true"), ("layer_replication", "[[0, 2], [1, 2]]"), ("target_parameters", #"["wi"]"#),
            ("trainable_token_indices", "[3]"), ("init_lora_weights", #""pissa""#), ("init_lora_weights", #""loftq""#),
            ("alora_invocation_tokens", "[1]"), ("megatron_config", #"{"a": 1}"#), ("ensure_weight_tying", "true"),
            ("kasa_config", #"{"beta": 1}"#), ("some_later_key", "0.5"), ("r", "0"), ("r", "2.5"), ("r", #""2""#),
            ("lora_alpha", #""x""#), ("use_rslora", "1"), ("rank_pattern", #"{"q": "x"}"#),
            ("alpha_pattern", #"{"q(": 1}"#), ("alpha_pattern", "[1]"), ("target_modules", "[1]"),
            ("modules_to_save", #"["lm_head"]"#), ("target_modules", #"["q"]"#), ("r", "5"),
        ]
    )
    func settings(key: String, value: String) throws {
        let folder = try self.assemble("linear")
        let json = try JSONSerialization.jsonObject(with: Data(value.utf8), options: .fragmentsAllowed)
        try self.edit(folder) { $0[key] = json }
        let error = failure { _ = try self.open(folder) }
        let text = error?.description ?? ""
        #expect(text.contains("adapter_config.json"), "\(text)")
        if key != "r" || value != "5" { #expect(text.contains(key), "\(text)") }
    }

    @Test("numbers that only Python writes are read, and refused where they count")
    func pythonNumbers() throws {
        let folder = try self.assemble("linear")
        let bytes = try Repository.bytes("\(folder.path)/adapter/adapter_config.json")
        let text = String(decoding: bytes, as: UTF8.self)
        let dropout = text.replacing("\"lora_dropout\": 0.0", with: "\"lora_dropout\": NaN")
        try folder.write(dropout, to: "adapter/adapter_config.json")
        #expect(try self.open(folder).adapter != nil)
        try folder.write(
            text.replacing("\"lora_alpha\": 3", with: "\"lora_alpha\": Infinity"),
            to: "adapter/adapter_config.json"
        )
        #expect(failure { _ = try self.open(folder) }?.message.contains("lora_alpha is inf") == true)
    }

    @Test("settings of training, and neutral ones of other releases, change nothing")
    func unused() throws {
        let folder = try self.assemble("linear")
        let fingerprint = try self.open(folder).fingerprint
        try self.edit(folder) { values in
            values["some_later_key"] = false
            values["another"] = [String: Any]()
            values["fan_in_fan_out"] = true
            values["lora_dropout"] = 0.1
            values["init_lora_weights"] = "gaussian"
            values["eva_config"] = ["rho": 2.0]
            values["layers_to_transform"] = [1]
            values["target_modules"] = ".*"
            values["use_dora"] = nil
        }
        #expect(try self.open(folder).fingerprint == fingerprint)
    }

    @Test("tensors that do not fit are refused with name and shapes")
    func misfits() throws {
        let query = "base_model.model.encoder.block.0.layer.0.SelfAttention.q"
        func refusal(_ words: [String], _ change: (inout [TensorView]) throws -> Void) throws {
            let folder = try self.assemble("linear")
            try self.editTensors(folder, change)
            let text = failure { _ = try self.open(folder) }?.description ?? ""
            for word in words + ["adapter_model.safetensors"] { #expect(text.contains(word), "no \(word) in: \(text)") }
        }
        func zeros(_ name: String, _ shape: [Int], _ dtype: DType = .float32) throws -> TensorView {
            let count = shape.reduce(1, *) * dtype.byteCount
            return try TensorView(name: name, dtype: dtype, shape: shape, bytes: [UInt8](repeating: 0, count: count))
        }
        func replacing(_ name: String, _ tensor: TensorView) -> (inout [TensorView]) -> Void {
            { tensors in
                tensors.removeAll { $0.name == name }
                tensors.append(tensor)
            }
        }
        let (first, second) = ("\(query).lora_A.weight", "\(query).lora_B.weight")
        try refusal(
            ["[16, 8]", "[16, 16]", "tiny/plain", query.replacingOccurrences(of: "base_model.model.", with: "")],
            replacing(first, try zeros(first, [2, 8]))
        )
        try refusal(["have no product"], replacing(first, try zeros(first, [3, 16])))
        try refusal([first, "no counterpart"]) { $0.removeAll { $0.name == second } }
        try refusal(["F64, F32, BF16 or F16"], replacing(first, try zeros(first, [2, 16], .int32)))
        let strays = [
            "\(query).lora_magnitude_vector.weight", "\(query).lora_B.bias", "prompt_embeddings",
            "base_model.model.shared.token_adapter.trainable_tokens_delta",
        ]
        for stray in strays {
            try refusal([stray, "no part of a plain LoRA adapter"]) { $0.append(try zeros(stray, [2, 16])) }
        }
        let other = "base_model.model.encoder.block.7.layer.0.SelfAttention.q"
        try refusal(["encoder.block.7.layer.0.SelfAttention.q", "does not have"]) {
            $0.append(try zeros("\(other).lora_A.weight", [2, 16]))
            $0.append(try zeros("\(other).lora_B.weight", [16, 2]))
        }
        try refusal(["shared.weight", "[300, 16]", "[256, 16]", "more tokens"]) {
            $0.append(try zeros("base_model.model.shared.weight", [300, 16]))
        }
        var broken = try zeros(first, [2, 16]).bytes
        broken.replaceSubrange(20..<24, with: withUnsafeBytes(of: Float.infinity) { Array($0) })
        try refusal(
            [first, "[0, 5]", "nan or infinite"],
            replacing(first, try TensorView(name: first, dtype: .float32, shape: [2, 16], bytes: broken))
        )
        try refusal(["has no tensors"]) { $0 = [] }
    }

    @Test("a merge that overflows is found when the model is cut")
    func overflow() throws {
        let folder = try self.assemble("linear-float16")
        try self.edit(folder) { $0["lora_alpha"] = 1e6 }
        let error = failure {
            try CheckpointSharder.shard(
                model: folder.path,
                output: "\(folder.path)/cut",
                pools: 1,
                adapter: "\(folder.path)/adapter"
            )
        }
        #expect(error?.code == .notFinite)
        #expect(error?.file == "\(folder.path) with the adapter \(folder.path)/adapter")
    }

    @Test("a stand-in for an adapter's files is named for what it is")
    func standIns() throws {
        let folder = try self.assemble("linear")
        try folder.write("version https://git-lfs.github.com/spec/v1\n", to: "adapter/adapter_model.safetensors")
        #expect(failure { _ = try self.open(folder) }?.message.contains("Git LFS") == true)
        try FileManager.default.removeItem(atPath: "\(folder.path)/adapter/adapter_model.safetensors")
        #expect(failure { _ = try self.open(folder) }?.message.contains("adapter_model.bin") == true)
        try folder.write("{", to: "adapter/adapter_config.json")
        #expect(failure { _ = try self.open(folder) }?.file?.hasSuffix("adapter_config.json") == true)
    }

    // MARK: - Patterns

    @Test(
        "patterns match as Python's re does",
        arguments: [
            ("q", ["q", "a.q"], ["xq", "q.a", "aq"]),
            (#"block\.\d+\.q"#, ["block.12.q", "encoder.block.0.q"], ["block.x.q", "xblock.1.q"]),
            ("^encoder.*(q|v)$", ["encoder.q", "encoder.a.b.v"], ["a.encoder.q", "encoder.o"]),
            ("a.c", ["abc", "x.a.c"], ["ac", "abcd"]),
            ("expert_[02-4]+.w[^io]", ["expert_34.wx", "y.expert_0.wq"], ["expert_1.wx", "expert_0.wo"]),
            ("(?:ab|a)*?b?", ["", "ab", "aab", "x.abab"], ["bb", "x.c"]),
            (#"\w+\.[\d.]+"#, ["a.1.2", "b_.7"], ["a-b.x", ".1"]),
            ("|q", ["", "q", "a.q", "a."], ["x"]),
        ] as [(String, [String], [String])]
    )
    func patterns(text: String, names: [String], others: [String]) throws {
        let pattern = try #require(ModulePattern(text))
        for name in names { #expect(pattern.matches(name), "\(name)") }
        for name in others { #expect(!pattern.matches(name), "\(name)") }
    }

    @Test("patterns that could mean something else are not read")
    func otherPatterns() {
        let texts = [
            "a{2}", "(?=a)", "(?P<n>a)", #"a\b"#, #"\1"#, "a**", "a++", "(a", "a)", "[a", "[]a]", "*", #"[\b]"#,
            "[b-a]",
            #"a\"#, "a?{1}", String(repeating: "(", count: 20) + String(repeating: ")", count: 20),
            String(repeating: "a", count: 1_025),
        ]
        for text in texts { #expect(ModulePattern(text) == nil, "\(text)") }
    }

    @Test("a pattern that makes other engines backtrack takes bounded work")
    func bounded() throws {
        let pattern = try #require(ModulePattern("(((a*)*)*)*b"))
        #expect(!pattern.matches(String(repeating: "a", count: 400)))
        // Each level once doubled the work, or took it once more for each byte of the name.
        for (inner, text) in [("a*", "a"), ("a+", "a"), ("a|b*", "b"), ("a?b*c?", "b")] {
            let deep = String(repeating: "((", count: 7) + inner + String(repeating: ")*c?)+", count: 7)
            let pattern = try #require(ModulePattern(deep), "\(deep)")
            #expect(pattern.matches(String(repeating: text, count: 900)), "\(deep)")
            #expect(!pattern.matches(String(repeating: text, count: 900) + "x"), "\(deep)")
        }
    }

    @Test("patterns that contradict each other for a module are refused by both names")
    func contradiction() throws {
        let folder = try self.assemble("linear")
        try self.edit(folder) { $0["alpha_pattern"] = ["q": 1, "SelfAttention.q": 1, "wi": 2, "mlp.wi": 3] }
        let text = failure { _ = try self.open(folder) }?.description ?? ""
        #expect(text.contains("alpha_pattern has both \"mlp.wi\" and \"wi\""), "\(text)")
    }
}
