# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's tritonclient, unmodified, against a gateway: everything that it can ask over gRPC of one model.

    triton_client.py ADDRESS MODEL PROMPT...

Prints one JSON object.
"""

import json
import sys

import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

import grpc
from triton_questions import Questions, ids, texts

address, model, prompts = sys.argv[1], sys.argv[2], sys.argv[3:]
client = triton.InferenceServerClient(address)
ask = Questions(triton, client, model, prompts, good="OK")

report = ask.about(client.get_model_metadata(model, as_json=True), client.get_server_metadata(as_json=True))
result = client.infer(model, [ask.text_input(prompts)], request_id="mine")
report |= {"ids": ids(result), "texts": texts(result), "id": result.get_response().id}
report |= {"beams": ask.beams(), "from_ids": ask.from_ids()}

with grpc.insecure_channel(address) as channel:
    # What tritonclient never sends: elements as lists instead of raw bytes.
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    request = service_pb2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="text_input", datatype="BYTES", shape=[len(prompts)])
    tensor.contents.bytes_contents.extend(prompt.encode() for prompt in prompts)
    answer = stub.ModelInfer(request)
    report["listed"] = [text.decode() for text in answer.outputs[0].contents.bytes_contents]

report["refused"] = ask.all_refused()
print(json.dumps(report))
