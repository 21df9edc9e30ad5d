// SPDX-License-Identifier: Apache-2.0

/// Inputs of the targets that read files: small files of each kind that are accepted.
///
/// Larger ones, from the programs that write such files, are in the corpus.
enum FileSeeds {
    private static func text(_ name: String, _ text: String) -> (name: String, bytes: [UInt8]) {
        (name, Array(text.utf8))
    }

    /// Joins the files that an input stands for.
    private static func files(_ name: String, _ texts: [String]) -> (name: String, bytes: [UInt8]) {
        (name, Array(texts.map { Array($0.utf8) }.joined(separator: [FileParts.separator])))
    }

    static let safetensors: [(name: String, bytes: [UInt8])] = [
        ("two", [0, 2] + Array(Self.header.utf8)), ("none", [0, 0] + Array("{}".utf8)),
        (
            "metadata",
            [0, 1]
                + Array(#"{"__metadata__":{"format":"pt"},"a":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}}"#.utf8)
        ),
        ("empty-tensor", [0, 0] + Array(#"{"a":{"dtype":"BF16","shape":[0,4],"data_offsets":[0,0]}}"#.utf8)),
        ("whole", [1] + TinyModel.files(split: false)[1].bytes),
    ]

    private static let header =
        #"{"a.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[8],"data_offsets":[16,32]}}"#

    static let torch: [(name: String, bytes: [UInt8])] = [
        (
            "archive",
            StoredZip.archive([
                ("m/data.pkl", Self.tensorPickle), ("m/data/0", [UInt8](0..<64)), ("m/byteorder", Array("little".utf8)),
            ])
        ),
        (
            "empty-archive",
            StoredZip.archive([
                ("m/data.pkl", Array("\u{80}".unicodeScalars.map { UInt8($0.value) }) + [2] + Array("}.".utf8))
            ])
        ),
    ]

    static let pickles: [(name: String, bytes: [UInt8])] = [
        ("tensor", Self.tensorPickle), ("none", [0x80, 2] + Array("}q\u{0}.".utf8)),
        ("ordered", [0x80, 2] + Array("ccollections\nOrderedDict\nq\u{0})Rq\u{1}.".utf8)),
        ("refused-nones", [0x80, 2] + [UInt8](repeating: 0x4E, count: 200) + Array(".".utf8)),
    ]

    /// `{"a": tensor of 4 x 4 float32}` as torch.save writes it.
    private static let tensorPickle: [UInt8] =
        [0x80, 2]
        + Array(
            "}q\u{0}X\u{1}\u{0}\u{0}\u{0}aq\u{1}ctorch._utils\n_rebuild_tensor_v2\nq\u{2}((X\u{7}\u{0}\u{0}\u{0}storageq\u{3}"
                .utf8
        )
        + Array(
            "ctorch\nFloatStorage\nq\u{4}X\u{1}\u{0}\u{0}\u{0}0q\u{5}X\u{3}\u{0}\u{0}\u{0}cpuq\u{6}K\u{10}tq\u{7}QK\u{0}K\u{4}K\u{4}"
                .utf8
        )
        + [0x86] + Array("q\u{8}K\u{4}K\u{1}".utf8) + [0x86] + Array("q\u{9}".utf8) + [0x89]
        + Array("ccollections\nOrderedDict\nq\u{A})Rq\u{B}tq\u{C}Rq\u{D}s.".utf8)

    static let configurations: [(name: String, bytes: [UInt8])] = [
        Self.files("t5", [TinyModel.configuration]),
        Self.files("switch", [Self.switchConfiguration, Self.generation]),
        Self.text("least", #"{"model_type":"switch_transformers"}"#),
        Self.text(
            "least-mt5",
            #"{"model_type":"mt5","decoder_start_token_id":0,"is_gated_act":true,"dense_act_fn":"gelu_new"}"#
        ),
    ]

    private static let switchConfiguration = """
        {"architectures":["SwitchTransformersForConditionalGeneration"],"model_type":"switch_transformers","d_ff":24,"d_kv":8,\
        "d_model":16,"num_heads":2,"num_layers":2,"num_decoder_layers":2,"num_experts":4,"expert_capacity":64,\
        "num_sparse_encoder_layers":1,"num_sparse_decoder_layers":1,"encoder_sparse_step":2,"decoder_sparse_step":2,\
        "dense_act_fn":"relu","is_gated_act":false,"feed_forward_proj":"relu","layer_norm_epsilon":1e-06,"router_bias":false,\
        "router_dtype":"float32","relative_attention_num_buckets":32,"relative_attention_max_distance":128,\
        "tie_word_embeddings":true,"scale_decoder_outputs":true,"vocab_size":256,"pad_token_id":0,"eos_token_id":[1,2],\
        "bos_token_id":null,"decoder_start_token_id":0,"hidden_size":16,"head_dim":8,"quantization_config":null,\
        "num_attention_heads":2,"num_hidden_layers":2}
        """

    private static let generation = """
        {"max_new_tokens":20,"max_length":30,"min_length":1,"min_new_tokens":1,"num_beams":4,"num_beam_groups":2,\
        "diversity_penalty":0.5,"num_return_sequences":2,"do_sample":true,"length_penalty":1.5,"early_stopping":"never",\
        "repetition_penalty":1.2,"encoder_repetition_penalty":1.1,"no_repeat_ngram_size":3,"encoder_no_repeat_ngram_size":2,\
        "bad_words_ids":[[3],[4,5]],"suppress_tokens":[7],"begin_suppress_tokens":[8],"forced_bos_token_id":2,\
        "forced_eos_token_id":[1],"sequence_bias":[[[3,4],-1.5]],"exponential_decay_length_penalty":[15,1.6],\
        "renormalize_logits":true,"temperature":0.7,"top_k":50,"top_p":0.9,"min_p":0.1,"typical_p":0.95,"epsilon_cutoff":0.0003,\
        "eta_cutoff":0.0003,"eos_token_id":1,"pad_token_id":0,"decoder_start_token_id":0,"transformers_version":"5.23.0"}
        """

    static let indexes: [(name: String, bytes: [UInt8])] = {
        let entries = zip(["a", "b"], TinyModel.halves)
            .flatMap { file, names in names.map { "\"\($0)\":\"\(file).safetensors\"" } }
        return [
            Self.text("two", "{\"metadata\":{\"total_size\":512},\"weight_map\":{\(entries.joined(separator: ","))}}")
        ]
    }()

    static let adapters: [(name: String, bytes: [UInt8])] = [
        Self.text(
            "plain",
            #"{"peft_type":"LORA","r":2,"lora_alpha":4,"target_modules":["q"],"base_model_name_or_path":"tiny"}"#
        ),
        Self.text(
            "patterns",
            #"{"peft_type":"LORA","r":8,"lora_alpha":4,"use_rslora":true,"bias":"none","target_modules":"q|v","modules_to_save":null,"#
                + #""init_lora_weights":"gaussian","rank_pattern":{"encoder\\.block\\.\\d+.*q":2,"((((a*)*)*)+)?[qv]":2},"#
                + #""alpha_pattern":{"^enc.*(q|v)$":2.5}}"#
        ),
    ]

    static let manifests: [(name: String, bytes: [UInt8])] = [
        Self.text(
            "experts",
            #"{"formatVersion":1,"kind":"experts","name":"pool-0","fingerprint":"0123456789abcdef","partFingerprint":"fedcba9876543210","#
                + #""source":"tiny","pools":2,"overrides":{"d_ff":"24"},"experts":[{"stack":"encoder","block":1,"experts":[0,1]}],"#
                + #""tensorCount":4,"byteCount":1024,"checksums":{"a":"0123456789abcdef"},"#
                + #""files":[{"name":"model.safetensors","byteCount":2048,"sha256":"\#(String(repeating: "0f", count: 32))"}]}"#
        ),
        Self.text(
            "packed",
            #"{"formatVersion":2,"kind":"experts","name":"pool-0","fingerprint":"0123456789abcdef","partFingerprint":"fedcba9876543210","#
                + #""source":"tiny","pools":1,"overrides":{},"experts":[],"tensorCount":0,"byteCount":0,"#
                + #""packing":{"form":{"version":1,"panelRows":16},"checksums":{}},"files":[{"name":"a","byteCount":0,"sha256":"\#(String(repeating: "0f", count: 32))"}]}"#
        ),
    ]

    static let placements: [(name: String, bytes: [UInt8])] = [
        Self.text(
            "two-pools",
            #"{"formatVersion":1,"fingerprint":"0123456789abcdef","source":"tiny","expertCount":3,"gateway":"gateway","#
                + #""pools":[{"name":"pool-0","directory":"pool-0","experts":[0,2]},{"name":"pool-1","directory":"pool-1","experts":[1]}],"#
                + #""outputBounds":[{"stack":"encoder","block":1,"degree":2,"experts":[1.5,0,3e38]}]}"#
        )
    ]

    static let listings: [(name: String, bytes: [UInt8])] = [
        Self.text(
            "model",
            #"{"sha":"0123456789abcdef0123456789abcdef01234567","siblings":[{"rfilename":"config.json","size":10,"#
                + #""blobId":"0123456789abcdef0123456789abcdef01234567"},{"rfilename":"onnx/model.bin","size":2048,"lfs":{"sha256":"#
                + #""\#(String(repeating: "0f", count: 32))","size":2048,"pointerSize":130}}]}"#
        )
    ]

    static let pieces: [(name: String, bytes: [UInt8])] = [
        ("small", TokenizerRun.smallPieces), ("trainer", TokenizerRun.smallPieces + [0x12, 2, 0x18, 1]),
        // One key, "a", which is replaced by "b": a trie of 98 units would be needed for more.
        ("normalizer", TokenizerRun.smallPieces + [0x1A, 12, 0x12, 10, 4, 0, 0, 0, 0, 0, 0, 0, 0x62, 0]),
    ]

    static let tokenizers: [(name: String, bytes: [UInt8])] = [
        Self.text(
            "small",
            #"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":0,"content":"<pad>","single_word":false,"lstrip":"#
                + #"false,"rstrip":false,"normalized":false,"special":true},{"id":1,"content":"</s>","single_word":false,"lstrip":false,"#
                + #""rstrip":true,"normalized":false,"special":true},{"id":7,"content":"ab c","single_word":true,"lstrip":true,"rstrip":"#
                + #"false,"normalized":true,"special":false}],"normalizer":{"type":"Sequence","normalizers":[{"type":"Precompiled","#
                + #""precompiled_charsmap":"BAAAAAAAAABiAA=="}]},"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,"#
                + #""model":{"type":"Unigram","unk_id":2,"vocab":[["<pad>",0.0],["</s>",0.0],["<unk>",0],["\#u{2581}",-2.5],["a",-3.25],"#
                + #"["b",-4],["\#u{2581}a",-2]],"byte_fallback":false}}"#
        )
    ]

    static let tokenizerSettings: [(name: String, bytes: [UInt8])] = [
        Self.files(
            "all",
            [
                #"{"tokenizer_class":"T5Tokenizer","eos_token":"</s>","unk_token":"<unk>","pad_token":"<pad>","extra_ids":3,"#
                    + #""additional_special_tokens":["<extra_id_0>"],"split_special_tokens":false,"clean_up_tokenization_spaces":true}"#,
                #"{"eos_token":{"content":"</s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false},"pad_token":"<pad>"}"#,
                #"{"<new>":103,"word":104}"#,
            ]
        ),
        Self.files(
            "decoder",
            [
                #"{"added_tokens_decoder":{"0":{"content":"<pad>","special":true},"103":{"content":"new","lstrip":true,"normalized":true}},"#
                    + #""extra_special_tokens":{"image_token":"<image>"},"extra_ids":100,"auto_map":null}"#
            ]
        ),
    ]

    static let settings: [(name: String, bytes: [UInt8])] = [
        Self.files(
            "both",
            [
                #"{"listen":"127.0.0.1:7400","threads":2,"plaintext":true,"pool":["a=b:1","c=d:2"],"drain-seconds":1.5}"#,
                "# people\nabcdefghijklmnopqrst alice\nsha256:\(String(repeating: "0f", count: 32)) bob\n",
            ]
        )
    ]

    static let certificates: [(name: String, bytes: [UInt8])] = [
        Self.files("pair", [Self.certificate, Self.key]),
        Self.files("chain", [Self.certificate + Self.certificate, Self.key]),
    ]

    /// A certificate of no use: it signs itself, for "fuzz".
    private static let certificate = """
        -----BEGIN CERTIFICATE-----
        MIIBjDCCATGgAwIBAgIURbT+RxAyK5IyTgvi2fkgHMPum3swCgYIKoZIzj0EAwIw
        DzENMAsGA1UEAwwEZnV6ejAgFw0yNjExMjkxMjAyNTdaGA8yMTI2MTEwNTEyMDI1
        N1owDzENMAsGA1UEAwwEZnV6ejBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABPLr
        8ArPeiIYigS1UitGe+P5c4+fuvXdUlskxyi+tAxivMaBn0YFUq6oLGtXCrIbl+GV
        A5VUj/Zl3ROujbG8gDajaTBnMB0GA1UdDgQWBBScXwOhXB/HJMaXFCRaqaw5l+xm
        RzAfBgNVHSMEGDAWgBScXwOhXB/HJMaXFCRaqaw5l+xmRzAPBgNVHRMBAf8EBTAD
        AQH/MBQGA1UdEQQNMAuCCWxvY2FsaG9zdDAKBggqhkjOPQQDAgNJADBGAiEAx7wD
        CJU9PzA83ORk7ksGcH2B+0c9imXz1TLtw+ui6wYCIQCY8mpSQz1+Lh/vXUDmlGzh
        pDmazQ3fYeECNnvSYKEBJw==
        -----END CERTIFICATE-----

        """

    private static let key = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgfKk2Uua7P8jokcDx
        iTdAy4XRoeFPI6Hr35Mn0xS6FUGhRANCAATy6/AKz3oiGIoEtVIrRnvj+XOPn7r1
        3VJbJMcovrQMYrzGgZ9GBVKuqCxrVwqyG5fhlQOVVI/2Zd0Tro2xvIA2
        -----END PRIVATE KEY-----

        """
}
