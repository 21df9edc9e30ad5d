// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import TensorKernels

extension GenerateResponse {
    /// The message for generated sequences.
    ///
    /// - Parameters:
    ///   - generations: The sequences, best first.
    ///   - usage: What the call cost.
    ///   - withLogprobs: Whether the client asked for log-probabilities.
    init(_ generations: [EngineGeneration], usage: EngineUsage, withLogprobs: Bool) {
        self.init(
            generations: generations.map { Generation($0, withLogprobs: withLogprobs) },
            usage: Usage(usage)
        )
    }
}

extension Generation {
    fileprivate init(_ generation: EngineGeneration, withLogprobs: Bool) {
        let sequence = generation.sequence
        var logprobs: [SwitchyardProtos.TokenLogprob] = []
        if withLogprobs {
            logprobs = sequence.tokenIDs.indices.map { place in
                SwitchyardProtos.TokenLogprob(
                    id: sequence.tokenIDs[place],
                    logprob: sequence.logprobs.indices.contains(place) ? sequence.logprobs[place] : 0,
                    top: sequence.topLogprobs.indices.contains(place) ? sequence.topLogprobs[place] : []
                )
            }
        }
        self.init(
            text: generation.text,
            tokenIDs: sequence.tokenIDs.map { UInt32(bitPattern: $0) },
            finishReason: WireFinishReason(sequence.finishReason),
            score: sequence.score,
            logprobs: logprobs
        )
    }
}

extension GeneratedToken {
    /// The message for one more token.
    ///
    /// - Parameters:
    ///   - token: The token.
    ///   - withLogprobs: Whether the client asked for log-probabilities.
    init(_ token: StreamedToken, withLogprobs: Bool) {
        self.init(
            sequence: UInt32(token.sequence),
            tokenID: UInt32(bitPattern: token.id),
            text: token.text,
            logprob: withLogprobs
                ? SwitchyardProtos.TokenLogprob(id: token.id, logprob: token.logprob, top: token.topLogprobs)
                : nil
        )
    }
}

extension ScoreResponse {
    /// The message for scores.
    init(_ scores: [TokenScore], usage: EngineUsage) {
        let total = scores.reduce(0.0) { $0 + Double($1.logprob) }
        self.init(
            logprobs: scores.map {
                SwitchyardProtos.TokenLogprob(id: $0.id, logprob: $0.logprob, top: $0.topLogprobs)
            },
            totalLogprob: Float(total),
            loss: scores.isEmpty ? 0 : Float(-total / Double(scores.count)),
            usage: Usage(usage)
        )
    }
}

extension SwitchyardProtos.TokenLogprob {
    fileprivate init(id: Int32, logprob: Float, top: [SwitchModel.TokenLogprob]) {
        self.init(
            tokenID: UInt32(bitPattern: id),
            logprob: logprob,
            top: top.map { TokenCandidate(tokenID: UInt32(bitPattern: $0.id), logprob: $0.logprob) }
        )
    }
}

extension Distributions {
    /// The message for the most likely tokens at each position.
    init(_ distributions: TokenDistributions) {
        // The protocol is little-endian, as are all machines that this builds for.
        self.init(
            tokensPerPosition: UInt32(clamping: distributions.tokens),
            tokenIDs: distributions.ids.withUnsafeBytes { Array($0) },
            logprobs: distributions.logprobs.withUnsafeBytes { Array($0) }
        )
    }
}

extension Tensor {
    /// The message for rows of float32.
    ///
    /// - Parameters:
    ///   - matrix: The rows.
    ///   - isMean: Whether to send one row, the mean over all, instead of each.
    init(_ matrix: FloatMatrix, isMean: Bool) {
        let mean = isMean ? Self.mean(of: matrix) : matrix
        // The protocol is little-endian, as are all machines that this builds for.
        let bytes = UnsafeRawBufferPointer(
            start: mean.pointer,
            count: mean.rows * mean.columns * MemoryLayout<Float>.size
        )
        self.init(dtype: .float32, shape: [UInt32(mean.rows), UInt32(mean.columns)], data: Array(bytes))
    }

    /// The mean over the rows, added up in double precision and in the order of the rows.
    private static func mean(of matrix: FloatMatrix) -> FloatMatrix {
        let result = FloatMatrix(rows: 1, columns: matrix.columns)
        for column in 0..<matrix.columns {
            var sum = 0.0
            for row in 0..<matrix.rows {
                sum += Double(matrix.row(row)[column])
            }
            result.row(0)[column] = Float(sum / Double(max(matrix.rows, 1)))
        }
        return result
    }
}

extension Usage {
    /// The message for what a request cost.
    init(_ usage: EngineUsage) {
        self.init()
        self.inputTokens = UInt32(clamping: usage.inputTokens)
        self.outputTokens = UInt32(clamping: usage.outputTokens)
        self.dropped = usage.dropped.map(SwitchyardProtos.DroppedTokens.init)
        self.routedTokens = UInt64(usage.routedTokens)
        self.queueMicroseconds = usage.queueTime.wholeMicroseconds
        self.encodeMicroseconds = usage.encodeTime.wholeMicroseconds
        self.decodeMicroseconds = usage.decodeTime.wholeMicroseconds
        self.modelFingerprint = usage.fingerprint
    }
}

extension SwitchyardProtos.DroppedTokens {
    /// The message for dropped tokens.
    init(_ dropped: DroppedTokens) {
        self.init(
            stack: WireStack(dropped.layer.stack),
            layer: UInt32(dropped.layer.block),
            reason: WireDropReason(dropped.reason),
            tokens: UInt64(dropped.count)
        )
    }
}
