# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's tritonclient asks alike over gRPC and over HTTP."""

import numpy
from tritonclient.utils import InferenceServerException


def ids(result):
    rows, lengths = result.as_numpy("output_ids"), result.as_numpy("sequence_length")
    return [[row[:length].tolist() for row, length in zip(*pair)] for pair in zip(rows, lengths)]


def texts(result):
    return [[text.decode() if isinstance(text, bytes) else str(text) for text in row] for row in result.as_numpy("text_output")]


class Questions:
    """Asks one model.

    :param triton: `tritonclient.grpc` or `tritonclient.http`.
    :param good: The status of an answer, where there is no error.
    """

    def __init__(self, triton, client, model, prompts, good):
        self.triton, self.client, self.model, self.prompts, self.good = triton, client, model, prompts, good

    def text_input(self, texts, **options):
        tensor = self.triton.InferInput("text_input", [len(texts)], "BYTES")
        tensor.set_data_from_numpy(numpy.array([text.encode() for text in texts], dtype=object), **options)
        return tensor

    def refused(self, **arguments):
        try:
            self.client.infer(**{"model_name": self.model, "inputs": [self.text_input(self.prompts[:1])], **arguments})
        except InferenceServerException as error:
            return {"status": error.status(), "message": error.message()}
        return {"status": self.good}

    def about(self, metadata, server):
        return {
            "live": self.client.is_server_live(),
            "ready": self.client.is_server_ready(),
            "model_ready": self.client.is_model_ready(self.model),
            "version_ready": self.client.is_model_ready(self.model, metadata["versions"][0]),
            "other_ready": self.client.is_model_ready("another"),
            "server": server["name"],
            "inputs": [tensor["name"] for tensor in metadata["inputs"]],
        }

    def beams(self):
        answer = self.client.infer(
            self.model,
            [self.text_input(self.prompts[:1])],
            outputs=[self.triton.InferRequestedOutput(name) for name in ("output_ids", "sequence_length")],
            parameters={"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 6},
            priority=1,
            timeout=60_000_000,
        )
        return ids(answer)

    def from_ids(self, **options):
        tokens = self.triton.InferInput("input_ids", [1, 5], "INT64")
        tokens.set_data_from_numpy(numpy.array([[261, 28, 9, 2047, 1]], dtype=numpy.int64), **options)
        return ids(self.client.infer(self.model, [tokens], parameters={"max_new_tokens": 4}))

    def all_refused(self):
        return {
            "model": self.refused(model_name="another"),
            "parameter": self.refused(parameters={"colour": "red"}),
            "sequence": self.refused(sequence_id=4),
            "output": self.refused(outputs=[self.triton.InferRequestedOutput("logits")]),
        }
