# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's tritonclient, unmodified, against a gateway: everything that it can ask over HTTP of one model.

    triton_http_client.py ADDRESS MODEL PROMPT...

Prints one JSON object.
"""

import json
import sys

import numpy
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

address, model, prompts = sys.argv[1], sys.argv[2], sys.argv[3:]
client = triton.InferenceServerClient(address, network_timeout=300)
EVERY = ["text_output", "output_ids", "sequence_length", "finish_reason", "score"]


def text_input(texts, binary=True):
    tensor = triton.InferInput("text_input", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(numpy.array([text.encode() for text in texts], dtype=object), binary_data=binary)
    return tensor


def ids(result):
    rows, lengths = result.as_numpy("output_ids"), result.as_numpy("sequence_length")
    return [[row[:length].tolist() for row, length in zip(*pair)] for pair in zip(rows, lengths)]


def texts(result):
    return [[t.decode() if isinstance(t, bytes) else str(t) for t in row] for row in result.as_numpy("text_output")]


def refused(**arguments):
    try:
        client.infer(**{"model_name": model, "inputs": [text_input(prompts[:1])], **arguments})
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    return {"status": "200"}


metadata = client.get_model_metadata(model)
version = metadata["versions"][0]
report = {
    "live": client.is_server_live(),
    "ready": client.is_server_ready(),
    "model_ready": client.is_model_ready(model),
    "version_ready": client.is_model_ready(model, version),
    "other_ready": client.is_model_ready("another"),
    "server": client.get_server_metadata()["name"],
    "inputs": [tensor["name"] for tensor in metadata["inputs"]],
}

result = client.infer(model, [text_input(prompts)], model_version=version, request_id="mine")
report |= {"ids": ids(result), "texts": texts(result), "id": result.get_response()["id"]}

# Every way in and out: bytes after the JSON, lists inside it, and one of each.
report["forms"] = []
for binary_in in (True, False):
    for binary_out in (True, False, None):
        outputs = [
            triton.InferRequestedOutput(name, binary_data=index % 2 == 0 if binary_out is None else binary_out)
            for index, name in enumerate(EVERY)
        ]
        answer = client.infer(model, [text_input(prompts, binary_in)], outputs=outputs)
        report["forms"].append([ids(answer), texts(answer), answer.as_numpy("score").astype(float).round(6).tolist()])

beams = client.infer(
    model,
    [text_input(prompts[:1])],
    outputs=[triton.InferRequestedOutput(name) for name in ("output_ids", "sequence_length")],
    parameters={"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 6},
    priority=1,
    timeout=60_000_000,
)
report["beams"] = ids(beams)

report["from_ids"] = []
for binary_in in (True, False):
    tokens = triton.InferInput("input_ids", [1, 5], "INT64")
    tokens.set_data_from_numpy(numpy.array([[261, 28, 9, 2047, 1]], dtype=numpy.int64), binary_data=binary_in)
    report["from_ids"].append(ids(client.infer(model, [tokens], parameters={"max_new_tokens": 4})))

report["refused"] = {
    "model": refused(model_name="another"),
    "version": refused(model_version="another"),
    "parameter": refused(parameters={"colour": "red"}),
    "sequence": refused(sequence_id=4),
    "output": refused(outputs=[triton.InferRequestedOutput("logits")]),
    "classes": refused(outputs=[triton.InferRequestedOutput("score", class_count=2)]),
    "compressed": refused(request_compression_algorithm="gzip"),
}
print(json.dumps(report))
