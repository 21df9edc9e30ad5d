# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's tritonclient, unmodified, against a gateway: everything that it can ask over HTTP of one model.

    triton_http_client.py ADDRESS MODEL PROMPT...

Prints one JSON object.
"""

import json
import sys

import tritonclient.http as triton
from triton_questions import Questions, ids, texts

address, model, prompts = sys.argv[1], sys.argv[2], sys.argv[3:]
client = triton.InferenceServerClient(address, network_timeout=300)
ask = Questions(triton, client, model, prompts, good="200")
EVERY = ["text_output", "output_ids", "sequence_length", "finish_reason", "score"]

metadata = client.get_model_metadata(model)
report = ask.about(metadata, client.get_server_metadata())
result = client.infer(model, [ask.text_input(prompts)], model_version=metadata["versions"][0], request_id="mine")
report |= {"ids": ids(result), "texts": texts(result), "id": result.get_response()["id"]}

# Every way in and out: bytes after the JSON, lists inside it, and one of each.
report["forms"] = []
for binary_in in (True, False):
    for binary_out in (True, False, None):
        outputs = [
            triton.InferRequestedOutput(name, binary_data=index % 2 == 0 if binary_out is None else binary_out)
            for index, name in enumerate(EVERY)
        ]
        answer = client.infer(model, [ask.text_input(prompts, binary_data=binary_in)], outputs=outputs)
        report["forms"].append([ids(answer), texts(answer), answer.as_numpy("score").astype(float).round(6).tolist()])

report["beams"] = ask.beams()
report["from_ids"] = [ask.from_ids(binary_data=binary_in) for binary_in in (True, False)]
report["refused"] = ask.all_refused() | {
    "version": ask.refused(model_version="another"),
    "classes": ask.refused(outputs=[triton.InferRequestedOutput("score", class_count=2)]),
    "compressed": ask.refused(request_compression_algorithm="gzip"),
}
print(json.dumps(report))
