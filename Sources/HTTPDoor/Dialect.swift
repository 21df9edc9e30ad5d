// SPDX-License-Identifier: Apache-2.0

internal import RPCCore

/// Whose way of asking and answering an address follows.
enum Dialect: Sendable {
    /// OpenAI's: `/v1/completions`, `/v1/models` and `/v1/embeddings`.
    case openAI
    /// The one of Hugging Face's text-generation-inference: `/generate` and its neighbours.
    case textGeneration
    /// The Open Inference Protocol's: `/v2` and what lies below it.
    case openInference
    /// The gateway's own: protobuf's JSON mapping of the messages of gRPC.
    case own

    /// A fault as the dialect's clients read it.
    func body(of fault: DoorFault) -> JSONOutput {
        switch self {
        case .openAI: OpenAIForm.body(of: fault)
        case .textGeneration: TextGenerationForm.body(of: fault)
        case .openInference: ["error": .string(fault.message)]
        case .own:
            // google.rpc.Status by protobuf's mapping.
            ["code": .integer(Int(fault.code.rawValue)), "message": .string(fault.message)]
        }
    }

    /// The status of HTTP that the dialect gives a fault.
    func status(of fault: DoorFault) -> Int {
        self == .textGeneration ? TextGenerationForm.status(of: fault) : fault.status
    }

    /// What the gateway's fields are called in the dialect.
    var names: KeyValuePairs<String, String> {
        switch self {
        case .openAI: OpenAIForm.names
        case .textGeneration: TextGenerationForm.names
        case .openInference, .own: [:]
        }
    }
}
