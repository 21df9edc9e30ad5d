// SPDX-License-Identifier: Apache-2.0

public import SwitchyardProtos

extension InferRequest {
    /// The answer to the request.
    ///
    /// - Parameters:
    ///   - responses: The gateway's answer to each row, in order, each with as many sequences as the others.
    ///   - model: The served model.
    ///   - isRaw: Whether elements travel as bytes; nil: as the request's did.
    /// - Returns: The answer.
    public func answer(
        _ responses: [GenerateResponse],
        model: ModelDescription,
        isRaw: Bool? = nil
    ) -> ModelInferResponse {
        let generations = responses.map(\.generations)
        let count = generations.map(\.count).max() ?? 0
        let length = generations.joined().map(\.tokenIDs.count).max() ?? 0
        var answer = ModelInferResponse(
            modelName: model.name,
            modelVersion: ModelTensors.version(of: model),
            id: self.id,
            parameters: Self.costs(responses)
        )
        for output in self.outputs {
            let elements = generations.joined()
                .map { Self.elements(output, of: $0, length: length, padding: model.padTokenID) }
            let shape = [Int64(generations.count), Int64(count)] + (output == .tokens ? [Int64(length)] : [])
            var tensor = InferOutputTensor(name: output.rawValue, datatype: output.datatype, shape: shape)
            if isRaw ?? self.isRaw {
                answer.rawOutputContents.append(elements.flatMap(\.raw))
            } else {
                tensor.contents = elements.reduce(into: InferTensorContents()) { $1.add(to: &$0) }
            }
            answer.outputs.append(tensor)
        }
        return answer
    }

    /// What the answer cost: tokens of all rows, and those that got no expert's output; and the seeds where tokens were sampled.
    private static func costs(_ responses: [GenerateResponse]) -> [String: InferParameter] {
        let usages = responses.compactMap(\.usage)
        let dropped = usages.flatMap(\.dropped).reduce(0) { $0 + Int64(clamping: $1.tokens) }
        var costs: [String: InferParameter] = [
            "input_tokens": InferParameter(value: .int64(usages.reduce(0) { $0 + Int64($1.inputTokens) })),
            "output_tokens": InferParameter(value: .int64(usages.reduce(0) { $0 + Int64($1.outputTokens) })),
            "dropped_tokens": InferParameter(value: .int64(dropped)),
        ]
        if responses.contains(where: { $0.seed != nil }) {
            let seeds = responses.map { $0.seed.map { "\($0)" } ?? "" }.joined(separator: ",")
            costs["seeds"] = InferParameter(value: .string(seeds))
        }
        return costs
    }

    /// What one sequence adds to a tensor.
    private enum Elements {
        case bytes([UInt8])
        case int64([Int64])
        case int32(Int32)
        case float(Float)

        /// Little-endian; an element of BYTES has its length before it.
        var raw: [UInt8] {
            switch self {
            case .bytes(let bytes): Self.raw(UInt32(clamping: bytes.count)) + bytes
            case .int64(let numbers): numbers.flatMap { Self.raw($0) }
            case .int32(let number): Self.raw(number)
            case .float(let number): Self.raw(number.bitPattern)
            }
        }

        private static func raw(_ number: some FixedWidthInteger) -> [UInt8] {
            withUnsafeBytes(of: number.littleEndian) { Array($0) }
        }

        func add(to contents: inout InferTensorContents) {
            switch self {
            case .bytes(let bytes): contents.bytesContents.append(bytes)
            case .int64(let numbers): contents.int64Contents += numbers
            case .int32(let number): contents.intContents.append(number)
            case .float(let number): contents.fp32Contents.append(number)
            }
        }
    }

    private static func elements(
        _ output: ModelTensors.Output,
        of generation: Generation,
        length: Int,
        padding: UInt32
    ) -> Elements {
        switch output {
        case .text: return .bytes(Array(generation.text.utf8))
        case .tokens:
            let missing = length - generation.tokenIDs.count
            return .int64((generation.tokenIDs + [UInt32](repeating: padding, count: missing)).map { Int64($0) })
        case .length: return .int32(Int32(clamping: generation.tokenIDs.count))
        case .finish: return .bytes(Array(Self.finish(generation.finishReason).utf8))
        case .score: return .float(generation.score)
        }
    }

    private static func finish(_ reason: WireFinishReason) -> String {
        switch reason {
        case .unspecified: ""
        case .endOfSequence: "end_of_sequence"
        case .length: "length"
        case .stop: "stop"
        }
    }
}
