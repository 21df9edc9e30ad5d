# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's tritonclient, unmodified, against a gateway: everything that it can ask over gRPC of one model.

    triton_client.py ADDRESS MODEL PROMPT...

Prints one JSON object.
"""

import json
import sys

import numpy
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

import grpc

address, model, prompts = sys.argv[1], sys.argv[2], sys.argv[3:]
client = triton.InferenceServerClient(address)


def text_input(texts):
    tensor = triton.InferInput("text_input", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(numpy.array([text.encode() for text in texts], dtype=object))
    return tensor


def ids(result):
    rows, lengths = result.as_numpy("output_ids"), result.as_numpy("sequence_length")
    return [[row[:length].tolist() for row, length in zip(*pair)] for pair in zip(rows, lengths)]


def texts(result):
    return [[text.decode() for text in row] for row in result.as_numpy("text_output")]


def refused(**arguments):
    try:
        client.infer(**{"model_name": model, "inputs": [text_input(prompts[:1])], **arguments})
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    return {"status": "OK"}


metadata = client.get_model_metadata(model, as_json=True)
report = {
    "live": client.is_server_live(),
    "ready": client.is_server_ready(),
    "model_ready": client.is_model_ready(model),
    "version_ready": client.is_model_ready(model, metadata["versions"][0]),
    "other_ready": client.is_model_ready("another"),
    "server": client.get_server_metadata(as_json=True)["name"],
    "inputs": [tensor["name"] for tensor in metadata["inputs"]],
}

result = client.infer(model, [text_input(prompts)], request_id="mine")
report |= {"ids": ids(result), "texts": texts(result), "id": result.get_response().id}

beams = client.infer(
    model,
    [text_input(prompts[:1])],
    outputs=[triton.InferRequestedOutput(name) for name in ("output_ids", "sequence_length")],
    parameters={"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 6},
    priority=1,
    timeout=60_000_000,
)
report["beams"] = ids(beams)

tokens = triton.InferInput("input_ids", [1, 5], "INT64")
tokens.set_data_from_numpy(numpy.array([[261, 28, 9, 2047, 1]], dtype=numpy.int64))
report["from_ids"] = ids(client.infer(model, [tokens], parameters={"max_new_tokens": 4}))

with grpc.insecure_channel(address) as channel:
    # What tritonclient never sends: elements as lists instead of raw bytes.
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    request = service_pb2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="text_input", datatype="BYTES", shape=[len(prompts)])
    tensor.contents.bytes_contents.extend(prompt.encode() for prompt in prompts)
    answer = stub.ModelInfer(request)
    report["listed"] = [text.decode() for text in answer.outputs[0].contents.bytes_contents]

report["refused"] = {
    "model": refused(model_name="another"),
    "parameter": refused(parameters={"colour": "red"}),
    "sequence": refused(sequence_id=4),
    "output": refused(outputs=[triton.InferRequestedOutput("logits")]),
}
print(json.dumps(report))
