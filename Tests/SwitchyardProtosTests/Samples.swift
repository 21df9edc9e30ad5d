// SPDX-License-Identifier: Apache-2.0

import SwitchyardProtos

/// One message of every type that goes over the wire by itself, every field of it set.
enum Samples {
    static let parameters = GenerationParameters(
        maxNewTokens: 1,
        minNewTokens: 2,
        numBeams: 3,
        lengthPenalty: 4.5,
        doSample: true,
        temperature: 6.25,
        topK: 7,
        topP: 0.125,
        repetitionPenalty: 9.5,
        seed: .max,
        stop: ["", "zwölf", "a\0b"],
        numReturnSequences: 12,
        topLogprobs: 13,
        skipScores: true,
        maxLength: 15,
        minLength: 16,
        earlyStopping: .never,
        numBeamGroups: 18,
        diversityPenalty: 0.75,
        noRepeatNgramSize: 20,
        encoderNoRepeatNgramSize: 21,
        encoderRepetitionPenalty: 22.5,
        badWordsIDs: TokenLists(lists: [TokenIDs(ids: [23, 1]), TokenIDs(ids: [])]),
        suppressTokens: TokenIDs(ids: [24]),
        beginSuppressTokens: TokenIDs(ids: []),
        forcedBosTokenID: TokenIDs(ids: [26]),
        forcedEosTokenID: TokenIDs(ids: [27, 1]),
        sequenceBias: SequenceBiases(biases: [SequenceBias(tokens: [28], bias: -0.5)]),
        exponentialDecayLengthPenalty: LengthDecay(startIndex: 29, factor: 1.5),
        minP: 0.25,
        typicalP: 0.5,
        epsilonCutoff: 0.125,
        etaCutoff: 0.375,
        renormalizeLogits: true,
        eosTokenID: TokenIDs(ids: [35, 1]),
        decoderStartTokenID: 36
    )
    /// Every field with presence given, at its zero.
    static let zeros = GenerationParameters(
        maxNewTokens: 0,
        minNewTokens: 0,
        numBeams: 0,
        lengthPenalty: 0,
        doSample: false,
        temperature: 0,
        topK: 0,
        topP: 0,
        repetitionPenalty: 0,
        seed: 0,
        numReturnSequences: 0,
        maxLength: 0,
        minLength: 0,
        numBeamGroups: 0,
        diversityPenalty: 0,
        noRepeatNgramSize: 0,
        encoderNoRepeatNgramSize: 0,
        encoderRepetitionPenalty: 0,
        badWordsIDs: TokenLists(),
        suppressTokens: TokenIDs(),
        minP: 0,
        typicalP: 0,
        epsilonCutoff: 0,
        etaCutoff: 0,
        renormalizeLogits: false,
        decoderStartTokenID: 0
    )
    static let generateRequest = GenerateRequest(
        input: .text("Grüße\0 <extra_id_0>"),
        parameters: Self.parameters,
        dropPolicy: DropPolicy(strict: true, maxDroppedFraction: 0.5),
        decoderPrefix: .tokenIDs([6, 7])
    )
    static let usage: Usage = {
        var usage = Usage()
        usage.inputTokens = 1
        usage.outputTokens = 2
        usage.dropped = WireDropReason.allCases.map { reason in
            DroppedTokens(stack: .decoder, layer: 3, reason: reason, tokens: 1 << 40)
        }
        usage.routedTokens = 4
        usage.queueMicroseconds = 5
        usage.encodeMicroseconds = 6
        usage.decodeMicroseconds = 7
        return usage
    }()
    static let logprob = TokenLogprob(
        tokenID: 9,
        logprob: -0.5,
        top: [TokenCandidate(tokenID: 9, logprob: -0.5), TokenCandidate(tokenID: 0, logprob: -1.5)]
    )
    static let generateResponse = GenerateResponse(
        generations: WireFinishReason.allCases.map { reason in
            Generation(
                text: "<extra_id_0> é",
                tokenIDs: [32_099, 0, .max],
                finishReason: reason,
                score: -3,
                logprobs: [Self.logprob]
            )
        },
        usage: Self.usage,
        seed: 3
    )
    static let load: HostLoad = {
        var load = HostLoad()
        load.activeCalls = 1
        load.queuedRows = 2
        load.queueRowLimit = 1 << 33
        load.queueMicroseconds = 4
        load.computeMicroseconds = 5
        load.draining = true
        load.passes = 7
        load.computedCalls = 8
        load.computedRows = 1 << 34
        load.namedExperts = 10
        load.expertReads = 11
        load.passCalls = 12
        return load
    }()
    static let layers = [
        LayerExperts(stack: .encoder, layer: 1, experts: [0, 1, 300]), LayerExperts(stack: .decoder, layer: 3),
    ]
    static let tensor = Tensor(dtype: .float32, shape: [2, 3], data: Array(0..<24))
    static let model: ModelDescription = {
        var model = ModelDescription()
        model.name = "switch-mini"
        model.fingerprint = 0x8123_4567_89AB_CDEF
        model.vocabularySize = 3
        model.modelWidth = 4
        model.feedForwardWidth = 5
        model.keyWidth = 6
        model.numHeads = 7
        model.encoderBlocks = 8
        model.decoderBlocks = 9
        model.expertsPerLayer = 10
        model.expertCapacity = 11
        model.sparseLayers = Self.layers
        model.parameters = 13
        model.weightDType = .bfloat16
        model.maxInputTokens = 15
        model.maxNewTokens = 16
        model.maxSequences = 17
        model.decoderStartTokenID = 18
        model.endTokenID = 19
        model.padTokenID = 20
        model.version = "0.1"
        model.maxInputs = 22
        return model
    }()
    static let gateway: GatewayLoad = {
        var load = GatewayLoad()
        load.queued = 1
        load.queueLimit = 2
        load.running = 3
        load.usedSlots = 4
        load.batchSlots = 5
        load.draining = true
        load.uptimeSeconds = 7
        load.decodedTokens = 8
        load.steps = 9
        return load
    }()
    static let replicas = ReplicaState.allCases.map { state in
        var replica = ReplicaDescription()
        replica.address = "host:1"
        replica.state = state
        replica.detail = "ejected after 5 failures"
        replica.outstandingCalls = 4
        replica.outstandingRows = 5
        replica.calls = 6
        replica.rows = 7
        replica.failures = 8
        replica.latencyP50Microseconds = 9
        replica.latencyP99Microseconds = 10
        replica.ejections = 11
        replica.zone = "north"
        replica.weightDType = .int8
        replica.load = Self.load
        return replica
    }
    static let cluster: ClusterDescription = {
        var cluster = ClusterDescription()
        cluster.pools = [
            PoolDescription(
                name: "pool-0",
                experts: Self.layers,
                replicas: Self.replicas,
                spare: Self.layers,
                extra: Self.layers
            )
        ]
        cluster.expertLoad = [LayerLoad(stack: .decoder, layer: 1, rows: [3, 0], rowsPerSecond: [1.5, 0])]
        cluster.gateway = Self.gateway
        cluster.modelFingerprint = 3
        cluster.complete = true
        cluster.dropped = Self.usage.dropped
        cluster.routedTokens = 6
        cluster.rowDType = .bfloat16
        return cluster
    }()
    static let host: HostDescription = {
        var host = HostDescription()
        host.modelFingerprint = 1
        host.shard = "pool-0"
        host.held = Self.layers
        host.modelWidth = 4
        host.weightDType = .float16
        host.acceptedDTypes = [.float32, .bfloat16]
        host.maxRowsPerCall = 7
        host.maxMessageBytes = 8
        host.load = Self.load
        host.version = "0.1"
        host.kernels = "AVX-512"
        host.uptimeSeconds = 12
        host.zone = "rack-7"
        host.weightBytes = 14
        return host
    }()
    static let forwardRequest = ForwardRequest(
        modelFingerprint: 0x0102_0304_0506_0708,
        stack: .decoder,
        layer: 11,
        groups: [ExpertRows(expert: 0, rows: 1), ExpertRows(expert: 200, rows: 1)],
        tokens: Self.tensor
    )
    static let forwardResponse = ForwardResponse(outputs: Self.tensor, load: Self.load)

    /// All messages, by their type's name in the `.proto` files, as something to do with each.
    static func visit(_ body: (_ name: String, _ message: any ProtoMessage) throws -> Void) rethrows {
        let v1 = "switchyard.v1."
        try body(v1 + "GenerateRequest", Self.generateRequest)
        try body(v1 + "GenerateRequest", GenerateRequest(input: .tokenIDs([1, 0, .max])))
        try body(v1 + "GenerateRequest", GenerateRequest(input: .tokenIDs([])))
        try body(v1 + "GenerateRequest", GenerateRequest(input: .text("")))
        try body(v1 + "GenerateRequest", GenerateRequest())
        try body(v1 + "GenerateResponse", Self.generateResponse)
        try body(v1 + "GenerateEvent", GenerateEvent(event: .response(Self.generateResponse)))
        let token = GeneratedToken(sequence: 1, tokenID: 2, text: "né", logprob: Self.logprob)
        try body(v1 + "GenerateEvent", GenerateEvent(event: .token(token)))
        try body(v1 + "GenerateEvent", GenerateEvent(event: .token(GeneratedToken())))
        try body(
            v1 + "EncodeRequest",
            EncodeRequest(input: .text("x"), pooling: .mean, dropPolicy: DropPolicy(strict: true))
        )
        try body(v1 + "EncodeRequest", EncodeRequest(input: .tokenIDs([5])))
        try body(
            v1 + "EncodeResponse",
            EncodeResponse(hiddenStates: Self.tensor, tokenIDs: [1, 2], usage: Self.usage)
        )
        try body(
            v1 + "EncodeRequest",
            EncodeRequest(inputs: [EncodeInput(input: .text("x")), EncodeInput(input: .tokenIDs([5, 1]))])
        )
        let status = InputStatus(code: 14, message: "no host")
        try body(
            v1 + "EncodeResponse",
            EncodeResponse(results: [
                EncodeResult(hiddenStates: Self.tensor, tokenIDs: [1, 2], usage: Self.usage),
                EncodeResult(status: status),
            ])
        )
        try body(
            v1 + "ScoreRequest",
            ScoreRequest(input: .text("x"), target: .tokenIDs([1]), topLogprobs: 5, dropPolicy: DropPolicy())
        )
        try body(v1 + "ScoreRequest", ScoreRequest(input: .tokenIDs([7]), target: .text("y")))
        try body(
            v1 + "ScoreResponse",
            ScoreResponse(logprobs: [Self.logprob], totalLogprob: -2, loss: 0.5, usage: Self.usage)
        )
        try body(
            v1 + "ScoreRequest",
            ScoreRequest(inputs: [
                ScoreInput(input: .text("x"), target: .text("")),
                ScoreInput(input: .tokenIDs([5]), target: .tokenIDs([1])),
            ])
        )
        try body(
            v1 + "ScoreResponse",
            ScoreResponse(results: [
                ScoreResult(status: status),
                ScoreResult(logprobs: [Self.logprob], totalLogprob: -2, loss: 0.5, usage: Self.usage),
            ])
        )
        try body(v1 + "DescribeModelRequest", DescribeModelRequest())
        try body(v1 + "ModelDescription", Self.model)
        try body(v1 + "DescribeClusterRequest", DescribeClusterRequest())
        try body(v1 + "ClusterDescription", Self.cluster)
        try body(v1 + "DescribeHostRequest", DescribeHostRequest())
        try body(v1 + "HostDescription", Self.host)
        try body(v1 + "ForwardRequest", Self.forwardRequest)
        try body(v1 + "ForwardResponse", Self.forwardResponse)
        try body(v1 + "Tensor", Self.tensor)
        try body("grpc.health.v1.HealthCheckRequest", HealthCheckRequest(service: "switchyard.v1.Gateway"))
        for status in HealthCheckResponse.ServingStatus.allCases {
            try body("grpc.health.v1.HealthCheckResponse", HealthCheckResponse(status: status))
        }
        try body("grpc.health.v1.HealthListRequest", HealthListRequest())
        try body(
            "grpc.health.v1.HealthListResponse",
            HealthListResponse(
                statuses: ["": .serving, "a\0b": .notServing, "c": .unknown]
                    .mapValues { HealthCheckResponse(status: $0) }
            )
        )
        try Self.visitReflection("grpc.reflection.v1.ServerReflection", body)
    }
}

extension Samples {
    private static func visitReflection(
        _ prefix: String,
        _ body: (_ name: String, _ message: any ProtoMessage) throws -> Void
    ) rethrows {
        let questions: [ServerReflectionRequest.Question?] = [
            nil, .fileByFilename("a/b.proto"), .fileContainingSymbol("a.b\0c"), .listServices(""),
            .fileContainingExtension(ExtensionRequest(containingType: "a.B", extensionNumber: -1)),
            .allExtensionNumbersOfType("a.B"),
        ]
        for question in questions {
            try body(prefix + "Request", ServerReflectionRequest(host: "host", question: question))
        }
        let answers: [ServerReflectionResponse.Answer?] = [
            nil, .files([[1, 0, 2], []]), .files([]),
            .extensionNumbers(ExtensionNumberResponse(baseTypeName: "a.B", extensionNumber: [1, -2, .max])),
            .services([ServiceResponse(name: "a"), ServiceResponse()]),
            .error(ErrorResponse(errorCode: 5, errorMessage: "nö")),
        ]
        for answer in answers {
            let request = ServerReflectionRequest(question: .listServices("*"))
            let response = ServerReflectionResponse(validHost: "h", originalRequest: request, answer: answer)
            try body(prefix + "Response", response)
        }
    }
}

/// A generator with a seed (SplitMix64), so that a failure comes again.
struct SplitMix: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { self.state = seed }

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var z = self.state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
