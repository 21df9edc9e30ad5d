# SPDX-License-Identifier: Apache-2.0
"""The names of the typed messages: the rules, and tables of their exceptions.

An entry that no .proto file matches is an error, so the tables cannot go stale.
"""

import re

# Swift names that differ from the .proto file's in more than form, by full name.
NAMES = {
    # Other modules have types with these names.
    "switchyard.v1.Stack": "WireStack",
    "switchyard.v1.DType": "WireDType",
    "switchyard.v1.DropReason": "WireDropReason",
    "switchyard.v1.FinishReason": "WireFinishReason",
    "switchyard.v1.EarlyStopping": "WireEarlyStopping",
    # More descriptive names.
    "switchyard.v1.GenerateRequest.queue_timeout_ms": "queueTimeoutMilliseconds",
    "switchyard.v1.EncodeRequest.queue_timeout_ms": "queueTimeoutMilliseconds",
    "switchyard.v1.ScoreRequest.queue_timeout_ms": "queueTimeoutMilliseconds",
    "switchyard.v1.HostDescription.d_model": "modelWidth",
    "switchyard.v1.ModelDescription.d_model": "modelWidth",
    "switchyard.v1.ModelDescription.d_ff": "feedForwardWidth",
    "switchyard.v1.ModelDescription.d_kv": "keyWidth",
    "switchyard.v1.GenerateRequest.input_ids": "tokenIDs",
    "switchyard.v1.EncodeRequest.input_ids": "tokenIDs",
    "switchyard.v1.EncodeInput.input_ids": "tokenIDs",
    "switchyard.v1.ScoreRequest.input_ids": "tokenIDs",
    "switchyard.v1.ScoreRequest.target_ids": "tokenIDs",
    "switchyard.v1.ScoreRequest.target_text": "text",
    "switchyard.v1.ScoreInput.input_ids": "tokenIDs",
    "switchyard.v1.ScoreInput.target_ids": "tokenIDs",
    "switchyard.v1.ScoreInput.target_text": "text",
    "switchyard.v1.GenerateRequest.decoder_input_ids": "tokenIDs",
    "switchyard.v1.GenerateRequest.decoder_text": "text",
    # Messages inside messages stand by themselves.
    "inference.ModelMetadataResponse.TensorMetadata": "TensorMetadata",
    "inference.ModelInferRequest.InferInputTensor": "InferInputTensor",
    "inference.ModelInferRequest.InferRequestedOutputTensor": "InferRequestedOutputTensor",
    "inference.ModelInferResponse.InferOutputTensor": "InferOutputTensor",
    "inference.InferParameter.parameter_choice": "value",
    "inference.InferParameter.bool_param": "bool",
    "inference.InferParameter.int64_param": "int64",
    "inference.InferParameter.string_param": "string",
    "inference.InferParameter.double_param": "double",
    "inference.InferParameter.uint64_param": "uint64",
    "grpc.reflection.v1.ServerReflectionRequest.message_request": "question",
    "grpc.reflection.v1.ServerReflectionResponse.message_response": "answer",
    "grpc.reflection.v1.ServerReflectionResponse.file_descriptor_response": "files",
    "grpc.reflection.v1.ServerReflectionResponse.all_extension_numbers_response": "extensionNumbers",
    "grpc.reflection.v1.ServerReflectionResponse.list_services_response": "services",
    "grpc.reflection.v1.ServerReflectionResponse.error_response": "error",
}

# Oneofs with the same members that share one Swift enum. The first one's comments document its cases.
SHARED_ONEOFS = {
    "ModelInput": (
        "An input of the encoder or a target of the decoder: text or token ids.",
        [
            "switchyard.v1.GenerateRequest.input",
            "switchyard.v1.GenerateRequest.decoder_prefix",
            "switchyard.v1.EncodeRequest.input",
            "switchyard.v1.EncodeInput.input",
            "switchyard.v1.ScoreRequest.input",
            "switchyard.v1.ScoreRequest.target",
            "switchyard.v1.ScoreInput.input",
            "switchyard.v1.ScoreInput.target",
        ],
    )
}

# Enums, and single fields, in which an unknown number is an error. Elsewhere it is read as the first value, and in a
# list it is left out.
REFUSE_UNKNOWN = {"switchyard.v1.Stack", "switchyard.v1.Pooling", "switchyard.v1.EarlyStopping", "switchyard.v1.Priority",
                  "switchyard.v1.Tensor.dtype"}

# Services whose method names are in Sources/SwitchyardProtos/Methods.swift: reflection has two names for one method.
SERVICES_BY_HAND = {"grpc.reflection.v1.ServerReflection"}

# Words with special capitalisation, unless a lower-case name begins with them.
WORDS = {"id": "ID", "ids": "IDs", "dtype": "DType", "dtypes": "DTypes"}


def upper_camel(words):
    """`row_dtype` as `RowDType`."""
    return "".join(WORDS.get(word, word[:1].upper() + word[1:]) for word in words.lower().split("_"))


def lower_camel(words):
    """`token_ids` as `tokenIDs`."""
    first, _, rest = words.partition("_")
    return first.lower() + upper_camel(rest)


def swift_type(name):
    """`TokenIds` as `TokenIDs`."""
    return re.sub(r"Ids?(?=[A-Z]|$)", lambda match: WORDS[match[0].lower()], name)


def swift_name(full_name, own):
    """The name of a field or oneof in Swift."""
    return NAMES.get(full_name) or lower_camel(own)


def case_name(enum, value):
    """`FINISH_REASON_UNSPECIFIED` of `FinishReason` as `unspecified`: without the enum's name."""
    prefix = ""
    for index, character in enumerate(value):
        prefix += character.replace("_", "").lower()
        if prefix == enum.lower() and value[index + 1 : index + 2] == "_":
            return lower_camel(value[index + 2 :])
    return lower_camel(value)


def snake(camel):
    """`TokenLogprob` as `token_logprob`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", camel).lower()


def c_type(full_name):
    """What protoc-c calls the structure of a message or the enum."""
    return "__".join(part[:1].upper() + part[1:] for part in full_name.split("."))


def c_function(full_name):
    """What protoc-c begins the names of a message's functions with."""
    return "__".join(snake(part) for part in full_name.split("."))


def c_constant(full_name, name):
    """What protoc-c calls a constant inside a message or an enum."""
    return f"{c_function(full_name)}__{name}".upper()
