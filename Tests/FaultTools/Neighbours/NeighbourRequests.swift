// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardClient

/// The requests of victims and of those beside them.
struct NeighbourRequests: Sendable {
    /// How large a neighbour's request is.
    ///
    /// Harmless ones and attacks come in the same sizes, in the same order.
    struct Size: Sendable {
        var input: Int
        var tokens: UInt32
        var beams: UInt32 = 1
        var draws: UInt32 = 1
    }

    static let sizes = [
        Size(input: 24, tokens: 8), Size(input: 96, tokens: 4), Size(input: 24, tokens: 6, beams: 4),
        Size(input: 400, tokens: 1), Size(input: 40, tokens: 6, draws: 4), Size(input: 24, tokens: 4, beams: 8),
        Size(input: 64, tokens: 8),
    ]

    /// Ways to attack, by name; each comes in every size.
    static let attacks = ["one expert", "twin", "extremes", "huge biases", "ties", "rules"]

    /// Token ids of harmless texts, end tokens left out.
    let words: [UInt32]
    /// Ids of victims' inputs.
    let victimInputs: [[UInt32]]
    /// Tokens that the first routers send to the busiest expert, and no other.
    let hot: [UInt32]
    private let texts: [String]

    /// Learns of the model what an attacker can learn through its gateway.
    ///
    /// - Parameters:
    ///   - texts: Passages.
    ///   - client: Calls the gateway.
    /// - Throws: What a call threw.
    init(texts: [String], client: GatewayClient) async throws {
        self.texts = texts
        var inputs: [[UInt32]] = []
        for text in texts {
            let answer = try await client.encode(
                EncodeRequest(input: .text(text), pooling: .mean),
                timeout: .seconds(300)
            )
            inputs.append(answer.tokenIDs)
        }
        self.victimInputs = inputs
        self.words = inputs.flatMap { $0.dropLast() }
        self.hot = try await Self.hotTokens(Array(Set(self.words)).sorted(), client: client)
    }

    /// Tokens that share their way through the encoder's sparse layers with as many others as possible.
    private static func hotTokens(_ candidates: [UInt32], client: GatewayClient) async throws -> [UInt32] {
        var found: [[UInt16]: [UInt32]] = [:]
        for token in candidates.prefix(160) {
            let input = [UInt32](repeating: token, count: 12) + [1]
            let request = EncodeRequest(input: .tokenIDs(input), pooling: .mean, returnRoutes: true)
            let answer = try await client.encode(request, timeout: .seconds(300))
            guard let routes = answer.encoderRoutes else { throw FaultError("the gateway returns no routes") }
            let experts = stride(from: 0, to: routes.experts.count, by: 2)
                .map { UInt16(routes.experts[$0]) | UInt16(routes.experts[$0 + 1]) << 8 }
            let width = routes.layers.count
            let first = Array(experts.prefix(width))
            // Only where all copies of the token go the same way is an expert hot for certain.
            let isOneWay = (0..<12).allSatisfy { Array(experts[$0 * width..<($0 + 1) * width]) == first }
            if isOneWay { found[first.prefix(1) + [], default: []].append(token) }
        }
        guard let best = found.values.max(by: { ($0.count, $1[0]) < ($1.count, $0[0]) }) else {
            throw FaultError("no token keeps to one expert")
        }
        return best
    }

    // MARK: - Victims

    /// How many different victims there are.
    static let victims = 40

    /// A victim's request: every search, with log-probabilities where there are any.
    func victim(_ number: Int) -> GenerateRequest {
        var (kind, request) = ReceiptRequests.request(number % Self.victims, texts: self.texts)
        request.returnReceipt = false
        request.dropPolicy = DropPolicy(strict: true)
        request.parameters?.maxNewTokens = UInt32(4 + number % 5)
        request.parameters?.minNewTokens = 2
        if !kind.contains("beams"), kind != "groups", kind != "stops" { request.parameters?.topLogprobs = 2 }
        return request
    }

    // MARK: - Neighbours

    /// A neighbour's harmless request.
    func harmless(_ number: Int) -> GenerateRequest {
        let size = Self.sizes[number % Self.sizes.count]
        let start = number * 37 % self.words.count
        let input = (0..<size.input - 1).map { self.words[(start + $0) % self.words.count] } + [1]
        return Self.request(input, size)
    }

    /// An attack of the same size.
    func attack(_ number: Int) -> (name: String, request: GenerateRequest) {
        let size = Self.sizes[number % Self.sizes.count]
        let name = Self.attacks[number / Self.sizes.count % Self.attacks.count]
        let room = size.input - 1
        var input = (0..<room).map { _ in self.hot[number % self.hot.count] } + [1]
        switch name {
        case "twin":
            // The very tokens of a victim, so that they meet at every expert.
            let victim = self.victimInputs[number % self.victimInputs.count]
            input = (0..<room).map { victim[$0 % victim.count] } + [1]
        case "ties":
            // Two tokens by turns: equal probabilities again and again.
            input = (0..<room).map { self.hot[$0 % min(2, self.hot.count)] } + [1]
        default: break
        }
        var request = Self.request(input, size)
        switch name {
        case "extremes":
            request.parameters?.repetitionPenalty = 1e30
            request.parameters?.encoderRepetitionPenalty = 1e-30
            if size.beams > 1 { request.parameters?.lengthPenalty = -1e30 }
            if size.draws > 1 {
                request.parameters?.temperature = number % 2 == 0 ? 1e30 : 1e-30
                request.parameters?.topP = 1e-30
                request.parameters?.typicalP = 1e-30
                request.parameters?.seed = .max
            }
        case "huge biases", "one expert":
            // Each step gives the token whose way is known.
            let bias = Float.greatestFiniteMagnitude
            var biases = [SequenceBias(tokens: [self.hot[0]], bias: bias)]
            if name == "huge biases" {
                biases += self.hot.dropFirst().prefix(200).map { .init(tokens: [$0], bias: -bias) }
            }
            request.parameters?.sequenceBias = SequenceBiases(biases: biases)
        case "rules":
            request.parameters?.noRepeatNgramSize = 1
            request.parameters?.encoderNoRepeatNgramSize = 1
            request.parameters?.suppressTokens = TokenIDs(ids: Array(self.words.prefix(500)))
            request.parameters?.exponentialDecayLengthPenalty = LengthDecay(startIndex: 0, factor: 1e4)
        default: break
        }
        return (name, request)
    }

    private static func request(_ input: [UInt32], _ size: Size) -> GenerateRequest {
        var parameters = GenerationParameters(maxNewTokens: size.tokens, minNewTokens: size.tokens)
        parameters.numBeams = size.beams
        if size.draws > 1 {
            parameters.doSample = true
            parameters.numReturnSequences = size.draws
            parameters.seed = 5
        }
        return GenerateRequest(input: .tokenIDs(input), parameters: parameters)
    }

    /// Requests that a gateway refuses: bytes that are no UTF-8, ids and numbers beyond every limit.
    static let broken: [[UInt8]] = {
        var parameters = GenerationParameters()
        parameters.temperature = .nan
        parameters.doSample = true
        let text = GenerateRequest(input: .text("AAAA")).serialized()
        // Overlong, a surrogate, a byte that never occurs, a cut sequence.
        let rubbish: [[UInt8]] = [
            [0xC0, 0x80, 0xC0, 0x80], [0xED, 0xA0, 0x80, 0x41], [0xFF, 0xFE, 0x41, 0x41], [0x41, 0xF0, 0x9F, 0x98],
        ]
        return rubbish.map { bytes in text.prefix(text.count - 4) + bytes } + [
            GenerateRequest(input: .tokenIDs([.max, 1])).serialized(),
            GenerateRequest(input: .text("a"), parameters: parameters).serialized(),
            GenerateRequest(input: .text("a"), parameters: GenerationParameters(maxNewTokens: .max)).serialized(),
            GenerateRequest(input: .text("a"), parameters: GenerationParameters(numBeams: .max)).serialized(),
            [0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
        ]
    }()
}
