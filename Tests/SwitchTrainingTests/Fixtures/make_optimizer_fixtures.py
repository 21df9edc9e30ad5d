# SPDX-License-Identifier: Apache-2.0
"""Writes optimizers.json and schedules.json beside this file: what torch and transformers make of given gradients.

    python make_optimizer_fixtures.py

Needs torch 2.13.0 and transformers 5.23.0. Every case starts from the same weights and makes three steps with the same
gradients; in the second one expert has no gradient, so PyTorch skips it. Tensors are base64 of little-endian float32.
"""

import base64
import json
import math
import os
import pathlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration, get_scheduler
from transformers.optimization import Adafactor

UNTOUCHED = "encoder.block.1.layer.1.mlp.experts.expert_1."
ADAMW = [
    {"lr": 1e-3},
    {"lr": 1e-2, "decay": 0.1, "betas": [0.8, 0.95], "eps": 1e-6},
    {"lr": 3e-4, "decay": 0.01, "clip": 1.0, "scale": 0.25},
    {"scale_parameter": True, "lr": 1e-2, "betas": [0.9, 0.99], "clip": 1.0},
    {"scale_parameter": True, "lr": 1e-2, "decay": 0.1, "betas": [0.8, 0.95], "eps": 1e-6, "scale_eps": 0.5},
]
ADAFACTOR = [
    {},
    {"warmup_init": True},
    {"relative_step": False, "scale_parameter": False, "lr": 1e-3},
    {"relative_step": False, "lr": 1e-2, "decay": 0.1},
    {"decay_rate": -0.5, "clip_threshold": 0.3, "scale": 4.0},
    {"relative_step": False, "scale_parameter": False, "lr": 1e-2, "clip_threshold": 2.0, "eps": [1e-12, 1e-2]},
]


def model():
    config = SwitchTransformersConfig(
        vocab_size=130, d_model=6, d_kv=2, d_ff=5, num_heads=3, num_layers=2, num_decoder_layers=2,
        num_sparse_encoder_layers=1, num_sparse_decoder_layers=0, num_experts=3, expert_capacity=8,
    )
    return SwitchTransformersForConditionalGeneration(config)


def encoded(tensor):
    return base64.b64encode(tensor.detach().contiguous().numpy().astype("<f4").tobytes()).decode()


def groups(parameters, decay):
    """Two groups, as transformers' Trainer makes them: norms and biases do not decay."""
    exempt = [p for name, p in parameters.items() if "layer_norm" in name or "bias" in name]
    others = [p for name, p in parameters.items() if not ("layer_norm" in name or "bias" in name)]
    return [{"params": others, "weight_decay": decay}, {"params": exempt, "weight_decay": 0.0}]


class ScaledAdam(torch.optim.Optimizer):
    """`ScaledAdam` of deploy/models/switch-mini/train_mini.py, with its constants as settings, and with decoupled decay."""

    def __init__(self, groups, lr, betas, eps=1e-8, scale_eps=1e-3):
        super().__init__(groups, {"lr": lr})
        self.betas, self.eps, self.scale_eps = betas, eps, scale_eps

    @torch.no_grad()
    def step(self):
        first, second = self.betas
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(m=torch.zeros_like(p), v=torch.zeros_like(p), t=0)
                state["t"] += 1
                state["m"].lerp_(p.grad, 1 - first)
                state["v"].mul_(second).addcmul_(p.grad, p.grad, value=1 - second)
                mean = state["m"] / (1 - first ** state["t"])
                update = mean / ((state["v"] / (1 - second ** state["t"])).sqrt() + self.eps)
                rate = group["lr"] * max(self.scale_eps, p.pow(2).mean().sqrt().item())
                p.mul_(1 - rate * group["weight_decay"]).add_(update, alpha=-rate)


def run(kind, case, start, gradients):
    parameters = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    case = dict(case)
    decay, clip, scale = case.pop("decay", 0.0), case.pop("clip", None), case.pop("scale", 1.0)
    if "betas" in case:
        case["betas"] = tuple(case["betas"])
    if "eps" in case and isinstance(case["eps"], list):
        case["eps"] = tuple(case["eps"])
    make = torch.optim.AdamW if kind == "adamw" else Adafactor
    if kind == "adamw" and case.pop("scale_parameter", False):
        make = ScaledAdam
    optimizer = make(groups(parameters, decay), **case)
    norms = []
    for step, gradient in enumerate(gradients):
        for name, parameter in parameters.items():
            untouched = step == 1 and name.startswith(UNTOUCHED)
            parameter.grad = None if untouched else gradient[name] * scale
        limit = clip if clip is not None else math.inf
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters.values(), limit)))
        optimizer.step()
    return {"norms": norms, "weights": {name: encoded(value) for name, value in parameters.items()}}


def optimizers():
    torch.manual_seed(3)
    start = {name: torch.randn(value.shape) * (0.02 if value.dim() > 1 else 1) for name, value in model().named_parameters()}
    # Sizes that differ by orders of magnitude from tensor to tensor and row to row.
    gradients = [
        {
            name: torch.randn(value.shape) * 10 ** torch.empty(value.shape[:-1] + (1,)).uniform_(-4, 0)
            for name, value in start.items()
        }
        for _ in range(3)
    ]
    return {
        "shapes": {name: list(value.shape) for name, value in start.items()},
        "start": {name: encoded(value) for name, value in start.items()},
        "gradients": [{name: encoded(value) for name, value in gradient.items()} for gradient in gradients],
        "untouched": UNTOUCHED,
        "adamw": [{"settings": case, **run("adamw", case, start, gradients)} for case in ADAMW],
        "adafactor": [{"settings": case, **run("adafactor", case, start, gradients)} for case in ADAFACTOR],
    }


def schedules():
    rows = []
    for name in ["constant_with_warmup", "linear", "cosine", "inverse_sqrt"]:
        for warmup in [0, 1, 7]:
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.25)
            schedule = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=25)
            rates = []
            for _ in range(26):
                rates.append(schedule.get_last_lr()[0])
                optimizer.step()
                schedule.step()
            rows.append({"name": name, "warmup": warmup, "total": 25, "rates": rates})
    t5 = [0.25 / math.sqrt(max(step, 7)) for step in range(26)]
    noam = [0.25 * 512**-0.5 * min((step + 1) ** -0.5, (step + 1) * 7**-1.5) for step in range(26)]
    rows.append({"name": "t5", "warmup": 7, "total": 25, "rates": t5})
    rows.append({"name": "noam", "warmup": 7, "total": 25, "rates": noam})
    return rows


def main():
    assert torch.__version__.startswith("2.13.0") and transformers.__version__ == "5.23.0"
    torch.set_num_threads(1)
    here = pathlib.Path(__file__).parent
    for name, value in [("optimizers", optimizers()), ("schedules", schedules())]:
        (here / f"{name}.json").write_text(json.dumps(value, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
