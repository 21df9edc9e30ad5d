// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardProtos

/// What all addresses of text-generation-inference's dialect share.
///
/// Source: https://github.com/huggingface/text-generation-inference/blob/v3.3.6/docs/openapi.json.
enum TextGenerationForm {
    /// An error as that server's clients read it.
    static func body(of fault: DoorFault) -> JSONOutput {
        let type =
            switch Self.status(of: fault) {
            case 429: "overloaded"
            case 408: "generation"
            case 400..<424, 425..<499: "validation"
            default: "generation"
            }
        return ["error": .string(fault.message), "error_type": .string(type)]
    }

    /// That server says 422 where others say 400, and 424 where a request failed on its way.
    static func status(of fault: DoorFault) -> Int {
        switch fault.status {
        case 400: 422
        case 500: 424
        default: fault.status
        }
    }

    /// What the gateway's fields are called here.
    static let names: KeyValuePairs<String, String> = [
        "parameters.max_new_tokens": "parameters.max_new_tokens",
        "parameters.num_return_sequences": "parameters.best_of", "parameters.top_logprobs": "parameters.top_n_tokens",
        "text": "inputs", "input_ids": "inputs",
    ]

    /// What `/info` says.
    static func info(_ backend: any DoorBackend) -> JSONOutput {
        let model = backend.model
        let input = Int(model.maxInputTokens)
        return [
            "model_id": .string(model.name), "model_sha": .string(OwnForm.hexadecimal(model.fingerprint)),
            "model_dtype": .string(Self.dtype(model.weightDType)), "model_device_type": "cpu",
            "model_pipeline_tag": "text2text-generation",
            "max_concurrent_requests": .integer(backend.maxConcurrentRequests),
            "max_best_of": .integer(Int(model.maxSequences)), "max_stop_sequences": .integer(backend.maxStopStrings),
            "max_input_tokens": .integer(input), "max_total_tokens": .integer(input + Int(model.maxNewTokens)),
            "max_client_batch_size": 1, "validation_workers": 1, "router": "switchyard-gateway",
            "version": .string(model.version), "sha": nil, "docker_label": nil,
        ]
    }

    private static func dtype(_ type: WireDType) -> String {
        switch type {
        case .float32: "torch.float32"
        case .bfloat16: "torch.bfloat16"
        case .float16: "torch.float16"
        case .int8: "torch.int8"
        case .unspecified: ""
        }
    }
}
