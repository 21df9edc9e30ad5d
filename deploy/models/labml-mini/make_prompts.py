# SPDX-License-Identifier: Apache-2.0
"""Makes prompts.json: how labml_nn goes on with lines of the text, with the weights of this folder.

    python make_prompts.py ../switch-mini/scenes.txt

Needs labml_nn 0.5.1, torch 2.13.0 and safetensors. The greedy continuation has 48 characters. A prompt of which a choice is closer
than 0.001 in its logits is left out, since rounding would decide it.
"""

import json
import pathlib
import sys
import types

import torch
from safetensors.torch import load_file

# labml_nn's datasets import it, and nothing that is used here does.
torchvision = types.ModuleType("torchvision")
torchvision.datasets = torchvision.transforms = types.ModuleType("torchvision.unused")
torchvision.transforms.__getattr__ = lambda name: object
sys.modules.setdefault("torchvision", torchvision)

import labml.tracker

# labml_nn calls it for debugging; the labml beside it has it no more.
if not hasattr(labml.tracker, "debug"):
    labml.tracker.debug = lambda *_: None

from labml_nn.transformers import MultiHeadAttention
from labml_nn.transformers.feed_forward import FeedForward
from labml_nn.transformers.switch import SwitchFeedForward, SwitchTransformer, SwitchTransformerLayer
from labml_nn.transformers.switch.experiment import AutoregressiveModel

FOLDER = pathlib.Path(__file__).parent
NEW_CHARACTERS, MARGIN = 48, 1e-3
BEGINNINGS = [
    "But, soft! what light ", "ROMEO:\n", "JULIET:\nO Romeo, Romeo! ", "First Citizen:\n", "GLOUCESTER:\nNow is the winter ", "MENENIUS:\n",
    "MERCUTIO:\n", "TYBALT:\n", "A plague ", "CLARENCE:\n",
]


def load():
    config = json.loads((FOLDER / "config.json").read_text())
    layer = SwitchTransformerLayer(
        d_model=config["d_model"], attn=MultiHeadAttention(config["heads"], config["d_model"], 0.0),
        feed_forward=SwitchFeedForward(
            capacity_factor=1.0, drop_tokens=False, is_scale_prob=config["is_scale_prob"], n_experts=config["n_experts"],
            expert=FeedForward(config["d_model"], config["d_ff"], 0.0), d_model=config["d_model"],
        ),
        dropout_prob=0.0,
    )
    model = AutoregressiveModel(len(config["characters"]), config["d_model"], SwitchTransformer(layer, config["n_layers"]))
    model.load_state_dict(load_file(FOLDER / "model.safetensors"))
    return model.eval(), config["characters"]


def main():
    text = pathlib.Path(sys.argv[1]).read_text()
    model, characters = load()
    prompts = []
    for beginning in BEGINNINGS:
        ids, margin = [characters.index(c) for c in beginning], float("inf")
        with torch.no_grad():
            for _ in range(NEW_CHARACTERS):
                logits = model(torch.tensor(ids)[:, None])[0][-1, 0]
                best = logits.topk(2).values
                margin = min(margin, (best[0] - best[1]).item())
                ids.append(int(logits.argmax()))
        place = text.find(beginning)
        if margin < MARGIN or place < 0:
            print(f"left out: {beginning!r}, margin {margin:.2g}", file=sys.stderr)
            continue
        new = ids[len(beginning):]
        end = place + len(beginning)
        prompts.append({
            "prompt": beginning, "expected": [text[end:end + NEW_CHARACTERS]], "answer": "".join(characters[i] for i in new),
            "token_ids": new,
        })
    (FOLDER / "prompts.json").write_text(json.dumps(prompts, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
