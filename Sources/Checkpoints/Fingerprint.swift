// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// The 64-bit number by which a gateway and its expert hosts check that they serve the same model.
///
/// It covers the configuration as far as it shapes the computation (not the expert capacity, token ids and generation's
/// defaults, which concern only the gateway) and, for every tensor that the configuration calls for: its canonical
/// name, type, shape and content. Of a tensor of up to 4 KiB all bytes count; of a larger one four blocks of 1 KiB do,
/// at its start, at one and two thirds, and at its end, so that opening stays cheap. Two checkpoints that differ only
/// in other bytes of large tensors have the same fingerprint; training changes all of them. It guards against mix-ups,
/// not against forgery.
///
/// File format, sharding, order and copies under other names do not matter.
public enum Fingerprint {
    static let blockBytes = 1_024
    static let blocks = 4

    /// A fingerprint as text, as in manifests.
    ///
    /// - Parameter value: The fingerprint.
    /// - Returns: Sixteen hexadecimal digits.
    public static func text(_ value: UInt64) -> String { value.fingerprintText }

    /// The fingerprint that sixteen hexadecimal digits stand for.
    ///
    /// - Parameter text: What `text(_:)` wrote.
    /// - Returns: `nil` for anything else.
    public static func value(_ text: String) -> UInt64? {
        guard text.utf8.count == 16, text.allSatisfy({ $0.isHexDigit && $0.isASCII }) else { return nil }
        return UInt64(text, radix: 16)
    }

    static func of(_ tensors: [String: StoredTensor], configuration: ModelConfiguration) -> UInt64 {
        var found: [String: StoredTensor] = [:]
        for (name, tensor) in tensors {
            guard var role = configuration.family.reader.role(named: name) else {
                // A packed matrix has only one name, of the role that all families share.
                if let packed = TensorRole(packedName: name), configuration.has(packed) { found[name] = tensor }
                continue
            }
            if role == .lmHead, configuration.tiedEmbeddings { role = .sharedEmbedding }
            let names = configuration.names(of: role)
            // Of several copies, the one that is used counts.
            guard configuration.has(role), names.first(where: { tensors[$0] != nil }) == name else { continue }
            found[role.name] = tensor
        }
        var message = Array(self.describe(configuration).utf8)
        for (name, tensor) in found.sorted(by: { $0.key < $1.key }) {
            message += Array("\n\(name) \(tensor.dtype.safetensorsName) \(tensor.shape) ".utf8)
            withUnsafeBytes(of: self.digest(tensor).littleEndian) { message += Array($0) }
        }
        return XXHash64.hash(message)
    }

    /// The hash of all of a tensor's bytes.
    static func checksum(_ tensor: StoredTensor) -> UInt64 {
        tensor.view().withUnsafeBytes { XXHash64.hash($0) }
    }

    /// The digest of a tensor's content, sampled if it is large.
    static func digest(_ tensor: StoredTensor) -> UInt64 {
        // An adapter's result is computed only where it is sampled.
        if let update = tensor.update, let count = TensorView.byteCount(shape: tensor.shape, dtype: tensor.dtype),
            count > self.blockBytes * self.blocks
        {
            let starts = self.starts(in: count)
            return update.bytes(of: tensor, starts.map { $0..<$0 + self.blockBytes })
                .reduce(UInt64(count)) { seed, block in block.withUnsafeBytes { XXHash64.hash($0, seed: seed) } }
        }
        return tensor.view()
            .withUnsafeBytes { bytes in
                guard bytes.count > self.blockBytes * self.blocks else { return XXHash64.hash(bytes) }
                return self.starts(in: bytes.count)
                    .reduce(UInt64(bytes.count)) { seed, start in
                        XXHash64.hash(
                            UnsafeRawBufferPointer(rebasing: bytes[start..<start + self.blockBytes]),
                            seed: seed
                        )
                    }
            }
    }

    /// Where the sampled blocks of a number of bytes begin.
    private static func starts(in count: Int) -> [Int] {
        (0..<self.blocks)
            .map { block in
                let last = count - self.blockBytes
                return block == self.blocks - 1 ? last : last / (self.blocks - 1) * block
            }
    }

    /// The layers as fingerprints have always written them: `[encoder.1, decoder.1]`.
    private static func names(_ layers: [SparseLayer]) -> String {
        "[\(layers.map { "\($0.stack).\($0.block)" }.joined(separator: ", "))]"
    }

    private static func describe(_ configuration: ModelConfiguration) -> String {
        var fields: [(String, any CustomStringConvertible)] = [
            ("vocab_size", configuration.vocabularySize), ("d_model", configuration.modelWidth),
            ("d_kv", configuration.keyWidth), ("d_ff", configuration.feedForwardWidth),
            ("num_heads", configuration.headCount), ("num_layers", configuration.encoderBlocks),
            ("num_decoder_layers", configuration.decoderBlocks), ("sparse", Self.names(configuration.sparseLayers)),
            ("num_experts", configuration.expertCount), ("router_bias", configuration.routerBias),
            ("router_dtype", configuration.routerDType.safetensorsName),
            ("layer_norm_epsilon", configuration.layerNormEpsilon.bitPattern),
            ("buckets", configuration.relativeBuckets), ("distance", configuration.relativeMaxDistance),
            ("tied", configuration.tiedEmbeddings), ("activation", configuration.activation.rawValue),
        ]
        if configuration.family != .switchTransformers { fields.append(("family", configuration.family.rawValue)) }
        // Left out where they are as in transformers, so that fingerprints from before these choices stay.
        if configuration.scalesDecoderOutputs != configuration.tiedEmbeddings {
            fields.append(("scaled_outputs", configuration.scalesDecoderOutputs))
        }
        if !configuration.scalesByProbability { fields.append(("scaled_by_probability", false)) }
        if configuration.droppedTokens != .zero { fields.append(("dropped", configuration.droppedTokens.rawValue)) }
        return "switchyard fingerprint 1\n" + fields.map { "\($0.0)=\($0.1)" }.joined(separator: "\n")
    }
}
