// SPDX-License-Identifier: Apache-2.0

import SwitchyardProtos
import Testing

@Suite struct MessageTests {
    /// Reads a message as the type of another.
    private func reread<Message: ProtoMessage>(_ message: Message, from bytes: [UInt8]) throws -> Message {
        try Message(serialized: bytes)
    }

    @Test func `every message comes back as it was`() throws {
        func check<Message: ProtoMessage>(_ message: Message) throws {
            #expect(try self.reread(message, from: message.serialized()) == message)
        }
        try Samples.visit { _, message in try check(message) }
    }

    @Test(.enabled(if: Protoc.isInstalled, "protoc is missing; install protobuf-compiler"))
    func `every message means the same to protoc`() throws {
        func check<Message: ProtoMessage>(_ name: String, _ message: Message) throws {
            let text = try Protoc.decode(message.serialized(), as: name)
            #expect(try self.reread(message, from: Protoc.encode(text, as: name)) == message)
        }
        try Samples.visit { name, message in try check(name, message) }
    }

    @Test(.enabled(if: Protoc.isInstalled, "protoc is missing; install protobuf-compiler"))
    func `fields have the names of the proto files`() throws {
        let parameters = try Protoc.decode(Samples.generateRequest.serialized(), as: "switchyard.v1.GenerateRequest")
        #expect(
            parameters == """
                text: "Gr\\303\\274\\303\\237e\\000 <extra_id_0>"
                parameters {
                  max_new_tokens: 1
                  min_new_tokens: 2
                  num_beams: 3
                  length_penalty: 4.5
                  do_sample: true
                  temperature: 6.25
                  top_k: 7
                  top_p: 0.125
                  repetition_penalty: 9.5
                  seed: 18446744073709551615
                  stop: ""
                  stop: "zw\\303\\266lf"
                  stop: "a\\000b"
                  num_return_sequences: 12
                  top_logprobs: 13
                  skip_scores: true
                  max_length: 15
                  min_length: 16
                  early_stopping: NEVER
                  num_beam_groups: 18
                  diversity_penalty: 0.75
                  no_repeat_ngram_size: 20
                  encoder_no_repeat_ngram_size: 21
                  encoder_repetition_penalty: 22.5
                  bad_words_ids {
                    lists {
                      ids: 23
                      ids: 1
                    }
                    lists {
                    }
                  }
                  suppress_tokens {
                    ids: 24
                  }
                  begin_suppress_tokens {
                  }
                  forced_bos_token_id {
                    ids: 26
                  }
                  forced_eos_token_id {
                    ids: 27
                    ids: 1
                  }
                  sequence_bias {
                    biases {
                      tokens: 28
                      bias: -0.5
                    }
                  }
                  exponential_decay_length_penalty {
                    start_index: 29
                    factor: 1.5
                  }
                  min_p: 0.25
                  typical_p: 0.5
                  epsilon_cutoff: 0.125
                  eta_cutoff: 0.375
                  renormalize_logits: true
                  eos_token_id {
                    ids: 35
                    ids: 1
                  }
                  decoder_start_token_id: 36
                }
                drop_policy {
                  strict: true
                  max_dropped_fraction: 0.5
                }
                decoder_input_ids {
                  ids: 6
                  ids: 7
                }

                """
        )
        let model = try Protoc.decode(Samples.model.serialized(), as: "switchyard.v1.ModelDescription")
        let names = model.split(separator: "\n").filter { !$0.hasPrefix(" ") && $0 != "}" }
            .map { line in
                line.prefix { $0 != ":" && $0 != " " }
            }
        #expect(
            names == [
                "name", "fingerprint", "vocabulary_size", "d_model", "d_ff", "d_kv", "num_heads", "encoder_blocks",
                "decoder_blocks", "experts_per_layer", "expert_capacity", "sparse_layers", "sparse_layers",
                "parameters", "weight_dtype", "max_input_tokens", "max_new_tokens", "max_sequences",
                "decoder_start_token_id", "end_token_id", "pad_token_id", "version",
                "max_inputs",
            ]
        )
    }

    @Test func `a zero that is given differs from a field that is left out`() throws {
        let given = Samples.zeros
        #expect(try self.reread(given, from: given.serialized()) == given)
        #expect(try GenerationParameters(serialized: []) == GenerationParameters())
        #expect(GenerationParameters().serialized().isEmpty)
        // top_k (7): 0, temperature (6): 0.0, do_sample (5): false
        let bytes: [UInt8] = [0x28, 0, 0x35, 0, 0, 0, 0, 0x38, 0]
        let message = try GenerationParameters(serialized: bytes)
        #expect(message == GenerationParameters(doSample: false, temperature: 0, topK: 0))
        #expect(message.serialized() == bytes)
    }

    @Test func `bytes of a client without presence mean what they meant`() throws {
        // What such a client writes: max_new_tokens (1): 300, num_beams (3): 4, length_penalty (4): 0.5, do_sample (5): true,
        // seed (10): 9, stop (11): "a", skip_scores (14): true; its zeros are not written.
        let bytes: [UInt8] = [
            0x08, 0xAC, 0x02, 0x18, 4, 0x25, 0, 0, 0, 0x3F, 0x28, 1, 0x50, 9, 0x5A, 1, 0x61, 0x70, 1,
        ]
        let message = try GenerationParameters(serialized: bytes)
        var expected = GenerationParameters()
        expected.maxNewTokens = 300
        expected.numBeams = 4
        expected.lengthPenalty = 0.5
        expected.doSample = true
        expected.seed = 9
        expected.stop = ["a"]
        expected.skipScores = true
        #expect(message == expected)
        #expect(message.serialized() == bytes)
        // The last of several values counts, as for every field.
        #expect(try GenerationParameters(serialized: [0x08, 5, 0x08, 0]).maxNewTokens == 0)
    }

    @Test(.enabled(if: Protoc.isInstalled, "protoc is missing; install protobuf-compiler"))
    func `zeros mean the same to protoc`() throws {
        let name = "switchyard.v1.GenerationParameters"
        let text = try Protoc.decode(Samples.zeros.serialized(), as: name)
        #expect(text.contains("do_sample: false\n") && text.contains("top_k: 0\n"))
        #expect(try GenerationParameters(serialized: Protoc.encode(text, as: name)) == Samples.zeros)
    }

    @Test func `a text that is not UTF-8 is refused with its field's name`() throws {
        // parameters (3) { stop (11): FF FE }
        let bytes: [UInt8] = [0x1A, 0x04, 0x5A, 0x02, 0xFF, 0xFE]
        #expect {
            try GenerateRequest(serialized: bytes)
        } throws: {
            let error = $0 as? ProtoError
            return error?.code == .invalidUTF8 && error?.message == "switchyard.v1.GenerationParameters"
                && error?.field == "stop"
        }
    }

    @Test func `unknown fields are passed over and unknown groups refused`() throws {
        let known = Samples.tensor.serialized()
        // Field 100: varint, 64 bits, delimited, 32 bits.
        let unknown: [UInt8] = [
            0xA0, 0x06, 0x05, 0xA1, 0x06, 1, 2, 3, 4, 5, 6, 7, 8, 0xA2, 0x06, 2, 9, 9, 0xA5, 0x06, 1, 2, 3, 4,
        ]
        #expect(try Tensor(serialized: unknown + known) == Samples.tensor)
        #expect(try Tensor(serialized: known + unknown) == Samples.tensor)
        #expect(throws: ProtoError.self) { try Tensor(serialized: known + [0xA3, 0x06, 0xA4, 0x06]) }
    }

    @Test func `an unknown choice is an error where it matters and unspecified where it does not`() throws {
        #expect {
            try Tensor(serialized: [0x08, 99])
        } throws: {
            ($0 as? ProtoError)?.code == .unknownChoice && "\($0)".contains("switchyard.v1.Tensor.dtype: 99")
        }
        #expect(throws: ProtoError.self) { try EncodeRequest(serialized: [0x18, 7]) }
        // usage (2) { dropped (3) { reason (3): 99 } }
        let response = try GenerateResponse(serialized: [0x12, 0x04, 0x1A, 0x02, 0x18, 99])
        #expect(response.usage?.dropped == [DroppedTokens(reason: .unspecified)])
        #expect(try HealthCheckResponse(serialized: [0x08, 99]).status == .unknown)
        // weight_dtype (5): 99, and accepted_dtypes (6): 1, 99
        let host = try HostDescription(serialized: [0x28, 99, 0x32, 0x02, 1, 99])
        #expect(host.weightDType == .unspecified && host.acceptedDTypes == [.float32])
    }

    @Test func `the last of several entries with one key counts, and a missing value is an empty message`() throws {
        // statuses (1) { key (1): "a", value (2) { status (1): 1 } }, then the same key with 2, then a key alone
        let first: [UInt8] = [0x0A, 0x07, 0x0A, 0x01, 0x61, 0x12, 0x02, 0x08, 0x01]
        let second: [UInt8] = [0x0A, 0x07, 0x0A, 0x01, 0x61, 0x12, 0x02, 0x08, 0x02]
        let bare: [UInt8] = [0x0A, 0x03, 0x0A, 0x01, 0x62]
        let list = try HealthListResponse(serialized: first + second + bare)
        #expect(list.statuses.mapValues(\.status) == ["a": .notServing, "b": .unknown])
    }

    @Test func `weights are kept in int8 and no tensor is sent in it`() throws {
        var host = HostDescription()
        host.weightDType = .int8
        #expect(try HostDescription(serialized: host.serialized()).weightDType == .int8)
        #expect(WireDType.int8.byteCount == nil)
        let envelope = ForwardResponseEnvelope(outputsShape: [1, 2], outputsDType: .int8)
        #expect(envelope.expectedTensorBytes == nil)
        let message = envelope.header(tensorByteCount: 2) + [1, 2]
        #expect {
            try message.withUnsafeBytes { try ForwardResponseEnvelope.parse($0) }
        } throws: {
            ($0 as? ProtoError)?.code == .sizeMismatch
        }
    }

    @Test func `a message over the limit is refused before it is read`() {
        let bytes = Samples.generateResponse.serialized()
        #expect {
            try GenerateResponse(serialized: bytes, limits: ProtoLimits(maxMessageBytes: 10))
        } throws: {
            ($0 as? ProtoError)?.code == .overLimit && "\($0)".contains("limit of 10")
        }
    }

    @Test func `a message that unfolds to far more than its bytes is refused`() throws {
        // generations (1), empty, 100,000 times: two bytes each on the wire, more than a hundred in memory.
        let bytes = Array(repeating: [0x0A, 0x00] as [UInt8], count: 100_000).flatMap(\.self)
        #expect {
            try GenerateResponse(serialized: bytes)
        } throws: {
            ($0 as? ProtoError)?.code == .overLimit && "\($0)".contains("unfold")
        }
        #expect(try GenerateResponse(serialized: Array(bytes.prefix(200))).generations.count == 100)
    }

    @Test func `large real messages are within the limits`() throws {
        let candidates = (0..<50).map { TokenCandidate(tokenID: UInt32($0), logprob: -1) }
        let logprobs = (0..<200).map { TokenLogprob(tokenID: UInt32($0), logprob: -1, top: candidates) }
        let response = GenerateResponse(generations: [Generation(text: "x", logprobs: logprobs)])
        #expect(try GenerateResponse(serialized: response.serialized()) == response)
        let ids = GenerateRequest(input: .tokenIDs(Array(repeating: 1, count: 100_000)))
        #expect(try GenerateRequest(serialized: ids.serialized()) == ids)
    }

    @Test func `a message cut anywhere is read or refused`() throws {
        let bytes = Samples.cluster.serialized()
        for count in 0..<bytes.count {
            _ = try? ClusterDescription(serialized: Array(bytes.prefix(count)))
        }
        #expect(throws: ProtoError.self) { try ClusterDescription(serialized: Array(bytes.dropLast())) }
    }

    @Test func `method names are those of the proto files`() throws {
        let descriptors = String(decoding: FileDescriptors.serializedSet, as: UTF8.self)
        let methods = [
            GatewayMethods.generate, GatewayMethods.generateStream, GatewayMethods.encode, GatewayMethods.score,
            GatewayMethods.describeModel, GatewayMethods.describeCluster, ExpertHostMethods.forward,
            ExpertHostMethods.backward, ExpertHostMethods.describe, HealthMethods.check, HealthMethods.watch,
            HealthMethods.list,
            ReflectionMethods.v1,
        ]
        for method in methods {
            let parts = method.service.split(separator: ".")
            let package = parts.dropLast().joined(separator: ".")
            #expect(descriptors.contains(package))
            #expect(
                descriptors.contains("\u{06}\(parts.last ?? "")") || descriptors.contains("\(parts.last ?? "")\u{12}")
            )
            #expect(descriptors.contains("\(method.name)\u{12}"))
        }
    }
}
