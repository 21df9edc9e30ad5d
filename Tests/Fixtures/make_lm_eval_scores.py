# SPDX-License-Identifier: Apache-2.0
"""Makes lm-eval/: questions with four answers each, and how likely each answer is by transformers and by labml_nn.

    python make_lm_eval_scores.py

Needs transformers 5.23.0, torch 2.13.0, protobuf, labml_nn 0.5.1 and safetensors. lm-evaluation-harness reads the files as its data sets;
`reference` is the sum of the log-probabilities of an answer's tokens, in float32, and `greedy` whether each of them is the most
likely one. For T5 an answer ends with its end token.
"""

import importlib.util
import json
import pathlib

import torch
from reference import require_pinned_versions
from transformers import SwitchTransformersForConditionalGeneration, T5Tokenizer

HERE = pathlib.Path(__file__).parent
MODELS = HERE.parent.parent / "deploy/models"
QUESTIONS = 6
# An answer whose best token is closer than this to the next one could be greedy or not by rounding.
MARGIN = 1e-3


def labml():
    """The module that loads the decoder-only miniature."""
    path = MODELS / "labml-mini/make_prompts.py"
    spec = importlib.util.spec_from_file_location("make_prompts", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines(prompts, answers):
    """Each prompt with its own answer first and those of three others."""
    for index, prompt in enumerate(prompts[:QUESTIONS]):
        others = [answers[(index + step) % len(answers)] for step in (1, 2, 3)]
        yield {"question": prompt, "choices": [answers[index], *others], "gold": 0}


def judged(logits, target):
    """The sum of the target's log-probabilities, and whether each token is the most likely one."""
    rows = torch.log_softmax(logits.float(), dim=-1)
    best = rows.topk(2, dim=-1)
    if (best.values[:, 0] - best.values[:, 1]).min() < MARGIN:
        print("close to a tie:", target)
    total = sum(rows[place, token].item() for place, token in enumerate(target))
    return round(total, 5), best.indices[:, 0].tolist() == target


def write(name, rows):
    path = HERE / "lm-eval" / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(path, len(rows))


def switch_rows():
    folder = MODELS / "switch-mini"
    tokenizer = T5Tokenizer.from_pretrained(folder)
    model = SwitchTransformersForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = json.loads((folder / "prompts.json").read_text())
    answers = [prompt["answer"].strip() + "</s>" for prompt in prompts]
    for row in lines([prompt["prompt"] for prompt in prompts], answers):
        encoder = tokenizer(row["question"], return_tensors="pt").input_ids
        results = []
        for choice in row["choices"]:
            target = tokenizer(choice, add_special_tokens=False).input_ids
            with torch.no_grad():
                logits = model(input_ids=encoder, labels=torch.tensor([target])).logits[0]
            results.append(judged(logits, target))
        yield row | {"reference": [r[0] for r in results], "greedy": [r[1] for r in results]}


def labml_rows():
    model, characters = labml().load()
    prompts = json.loads((MODELS / "labml-mini/prompts.json").read_text())
    for row in lines([prompt["prompt"] for prompt in prompts], [prompt["answer"] for prompt in prompts]):
        context = [characters.index(c) for c in row["question"]]
        # The harness puts spaces at a context's end before the answer instead, so they are scored too.
        spaces = len(row["question"]) - len(row["question"].rstrip())
        results = []
        for choice in row["choices"]:
            target = [characters.index(c) for c in choice]
            ids = context + target
            start = len(context) - spaces
            with torch.no_grad():
                logits = model(torch.tensor(ids)[:, None])[0][:, 0]
            results.append(judged(logits[start - 1 : len(ids) - 1], ids[start:]))
        yield row | {"reference": [r[0] for r in results], "greedy": [r[1] for r in results]}


if __name__ == "__main__":
    require_pinned_versions()
    write("switch-mini", list(switch_rows()))
    write("labml-mini", list(labml_rows()))
