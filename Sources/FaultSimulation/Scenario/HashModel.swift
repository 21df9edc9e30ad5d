// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// A model whose experts are hashes: what an expert gives for a row depends on the layer, the expert and the row alone.
///
/// Tokens follow from the rows, so a row that is wrong, lost or taken for its neighbour changes the tokens behind it.
package struct HashModel: Sendable, Equatable {
    /// Sparse layers of the encoder.
    package var encoderLayers = 1
    /// Sparse layers of the decoder.
    package var decoderLayers = 2
    /// Experts of each sparse layer.
    package var experts = 8

    /// The encoder's sparse layers in order.
    var encoder: [SparseLayer] { (0..<self.encoderLayers).map { SparseLayer(stack: .encoder, block: $0) } }

    /// The decoder's sparse layers in order.
    var decoder: [SparseLayer] { (0..<self.decoderLayers).map { SparseLayer(stack: .decoder, block: $0) } }

    /// The finalizer of SplitMix64: every bit of the input changes about half of the output's.
    static func mix(_ value: UInt64) -> UInt64 {
        var value = value &+ 0x9E37_79B9_7F4A_7C15
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }

    private static func salt(_ layer: SparseLayer) -> UInt64 {
        Self.mix(UInt64(layer.block) &* 2 &+ (layer.stack == .decoder ? 1 : 0))
    }

    /// The expert that a row goes to.
    func expert(of row: UInt64, in layer: SparseLayer) -> Int {
        Int(Self.mix(row ^ Self.salt(layer)) % UInt64(self.experts))
    }

    /// What an expert gives for a row.
    static func output(of expert: Int, in layer: SparseLayer, for row: UInt64) -> UInt64 {
        Self.mix(row &+ Self.salt(layer) &* 31 &+ UInt64(expert) &* 0xD6E8_FEB8_6659_FD93)
    }

    /// A row behind a layer; a dropped one has only its residual.
    static func combine(_ row: UInt64, _ output: UInt64?) -> UInt64 {
        row &* 0x2545_F491_4F6C_DD1D &+ (output ?? 0)
    }

    /// The rows of a request's input.
    static func input(of request: SimulatedRequest) -> [UInt64] {
        (0..<request.inputTokens).map { Self.mix(request.seed &+ UInt64($0)) }
    }

    /// What the decoder keeps of an encoded input.
    static func digest(_ rows: [UInt64]) -> UInt64 { rows.reduce(7) { Self.mix($0 ^ $1) } }

    /// The rows that a sequence decodes next, one for each of its slots.
    static func decoderRows(digest: UInt64, tokens: [UInt32], slots: Int) -> [UInt64] {
        let last = UInt64(tokens.last ?? 0)
        return (0..<slots).map { Self.mix(digest ^ (last << 20) ^ UInt64(tokens.count) ^ (UInt64($0) << 56)) }
    }

    /// The token that decoded rows stand for.
    static func token(_ rows: [UInt64]) -> UInt32 { UInt32(truncatingIfNeeded: Self.digest(rows) % 32_000) }

    /// The tokens that a request must get where nothing is dropped.
    package func tokens(of request: SimulatedRequest) -> [UInt32] {
        func through(_ layers: [SparseLayer], _ rows: [UInt64]) -> [UInt64] {
            layers.reduce(rows) { rows, layer in
                rows.map { row in
                    Self.combine(row, Self.output(of: self.expert(of: row, in: layer), in: layer, for: row))
                }
            }
        }
        let digest = Self.digest(through(self.encoder, Self.input(of: request)))
        var tokens: [UInt32] = []
        for _ in 0..<request.outputTokens {
            let rows = Self.decoderRows(digest: digest, tokens: tokens, slots: request.slots)
            tokens.append(Self.token(through(self.decoder, rows)))
        }
        return tokens
    }
}
