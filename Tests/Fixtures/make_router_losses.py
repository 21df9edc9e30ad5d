# SPDX-License-Identifier: Apache-2.0
"""Adds the routers' losses to the parity fixtures: parity/NAME/router_losses.json, one entry for each prompt.

    python make_router_losses.py [NAME ...]

Needs what make_parity_fixtures.py needs, and its output. `transformers` holds the four losses that transformers computes
itself; `layers` the paper's load balancing loss and ST-MoE's z-loss of each sparse layer, in float64 from the logits that
transformers returns, the encoder's layers first.
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import SwitchTransformersForConditionalGeneration

from reference import require_pinned_versions

NAMES = ["asymmetric", "capacity", "step4"]
LOSSES = ["encoder_aux_loss", "encoder_z_loss", "decoder_aux_loss", "decoder_z_loss"]


def layer_losses(logits):
    """The losses of one router from its logits [1, tokens, experts]."""
    logits = logits[0].double()
    experts = logits.shape[-1]
    probabilities = torch.softmax(logits, dim=-1)
    shares = torch.nn.functional.one_hot(logits.argmax(-1), experts).double().mean(0)
    balance = experts * float((shares * probabilities.mean(0)).sum())
    return [balance, float((torch.logsumexp(logits, dim=-1) ** 2).mean())]


@torch.no_grad()
def losses(model, prompt):
    """One prompt's entry."""
    output = model(
        input_ids=torch.tensor([prompt["ids"]]), decoder_input_ids=torch.tensor([prompt["decoder"]]),
        output_router_logits=True,
    )
    layers = [layer_losses(logits) for logits in (*output.encoder_router_logits, *output.decoder_router_logits)]
    return {"transformers": [float(output[name]) for name in LOSSES], "layers": layers}


def main():
    require_pinned_versions()
    for name in sys.argv[1:] or NAMES:
        folder = pathlib.Path(__file__).parent / "parity" / name
        model = SwitchTransformersForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        prompts = json.loads((folder / "golden.json").read_text())["prompts"]
        entries = [losses(model, prompt) for prompt in prompts]
        lines = ",\n".join(json.dumps(entry) for entry in entries)
        (folder / "router_losses.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
