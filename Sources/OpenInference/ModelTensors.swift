// SPDX-License-Identifier: Apache-2.0

public import SwitchyardProtos

/// A model as the Open Inference Protocol sees it: what tensors go in and come out.
///
/// Names are those of other servers of language models where they have one, such as `text_input` and `text_output` of
/// https://github.com/triton-inference-server/vllm_backend/blob/r25.01/README.md.
public enum ModelTensors {
    /// What goes in: one of the two, with an entry for each input of the model.
    public static let textInput = "text_input"
    /// Token ids instead of text: a row for each input.
    public static let tokenInput = "input_ids"

    /// What comes out.
    public enum Output: String, Sendable, CaseIterable {
        /// Texts, special tokens included: sentinels carry the answer.
        case text = "text_output"
        /// Token ids; shorter sequences end with the padding token.
        case tokens = "output_ids"
        /// How many of the ids of each sequence are its own.
        case length = "sequence_length"
        /// Why each sequence ended: `end_of_sequence`, `length` or `stop`.
        case finish = "finish_reason"
        /// How likely each sequence was, as `Generation.score` says.
        case score = "score"

        var datatype: String {
            switch self {
            case .text, .finish: "BYTES"
            case .tokens: "INT64"
            case .length: "INT32"
            case .score: "FP32"
            }
        }
    }

    /// The version of a model: its fingerprint as sixteen hexadecimal digits.
    ///
    /// - Parameter model: The served model.
    /// - Returns: The digits.
    public static func version(of model: ModelDescription) -> String {
        let digits = String(model.fingerprint, radix: 16)
        return String(repeating: "0", count: max(0, 16 - digits.count)) + digits
    }

    /// Whether a request means the served model.
    ///
    /// - Parameters:
    ///   - name: The name in the request.
    ///   - version: The version in the request; empty for any.
    ///   - model: The served model.
    /// - Returns: Whether both fit.
    public static func names(_ name: String, version: String, _ model: ModelDescription) -> Bool {
        name == model.name && (version.isEmpty || version == Self.version(of: model))
    }

    /// Describes the server.
    ///
    /// - Parameter model: The served model, which knows the software's version.
    /// - Returns: The description.
    public static func server(_ model: ModelDescription) -> ServerMetadataResponse {
        ServerMetadataResponse(name: "switchyard", version: model.version)
    }

    /// Describes the model's tensors.
    ///
    /// - Parameter model: The served model.
    /// - Returns: The description.
    public static func metadata(_ model: ModelDescription) -> ModelMetadataResponse {
        ModelMetadataResponse(
            name: model.name,
            versions: [Self.version(of: model)],
            platform: "switchyard",
            inputs: [
                TensorMetadata(name: Self.textInput, datatype: "BYTES", shape: [-1]),
                TensorMetadata(name: Self.tokenInput, datatype: "INT64", shape: [-1, -1]),
            ],
            outputs: Output.allCases.map {
                TensorMetadata(
                    name: $0.rawValue,
                    datatype: $0.datatype,
                    shape: $0 == .tokens ? [-1, -1, -1] : [-1, -1]
                )
            }
        )
    }
}
