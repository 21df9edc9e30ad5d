#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes miniature.json: what transformers' generate() answers with the miniature, in float32, for several parameters.

Needs transformers 5.23.0, torch 2.13.0 (CPU) and protobuf. Run it from anywhere:

    python Tests/SwitchModelTests/Fixtures/make_miniature_fixtures.py MODEL_DIRECTORY
"""

import json
import pathlib
import sys

import torch
import transformers
from transformers import SwitchTransformersForConditionalGeneration, T5Tokenizer

assert transformers.__version__ == "5.23.0", transformers.__version__
assert torch.__version__.split("+")[0] == "2.13.0", torch.__version__

SETTINGS = [
    {"num_beams": 1, "repetition_penalty": 1.5},
    {"num_beams": 1, "min_new_tokens": 12},
    {"num_beams": 2, "num_return_sequences": 2},
    {"num_beams": 4, "num_return_sequences": 3, "early_stopping": True},
    {"num_beams": 4, "length_penalty": 2.0, "early_stopping": "never", "max_new_tokens": 12},
    {"num_beams": 5, "length_penalty": -1.0, "repetition_penalty": 1.3, "num_return_sequences": 5},
]


def main():
    directory = pathlib.Path(sys.argv[1])
    tokenizer = T5Tokenizer.from_pretrained(directory)
    model = SwitchTransformersForConditionalGeneration.from_pretrained(directory, dtype=torch.float32).eval()
    prompts = [line["prompt"] for line in json.loads((directory / "prompts.json").read_text())]
    cases = []
    for number, prompt in enumerate(prompts):
        settings = SETTINGS[number % len(SETTINGS)]
        inputs = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            output = model.generate(inputs, return_dict_in_generate=True, output_scores=True,
                                    **{"max_new_tokens": 20, **settings})
        results = []
        for index, row in enumerate(output.sequences):
            ids = row.tolist()[1:]
            result = {"ids": ids}
            if settings["num_beams"] > 1:
                result["ids"] = ids[:int((output.beam_indices[index] >= 0).sum())]
                result["score"] = round(output.sequences_scores[index].item(), 5)
            results.append(result)
        stopping = {False: "heuristic", True: "always", "never": "never"}[settings.get("early_stopping", False)]
        cases.append({"prompt": prompt, **settings, "early_stopping": stopping, "results": results})
    path = pathlib.Path(__file__).with_name("miniature.json")
    path.write_text(json.dumps({"transformers": transformers.__version__, "cases": cases}, indent=1) + "\n")
    print(f"{len(cases)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
