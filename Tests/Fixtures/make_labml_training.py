# SPDX-License-Identifier: Apache-2.0
"""Writes the gradients and updates of labml's Switch Transformer: ../SwitchTrainingTests/Fixtures/labml/NAME.json.

    python make_labml_training.py

Weights and tokens are functions of a seed that the tests compute too. `gradients` are those of labml_nn's own modules and of its
experiment's loss in float64, as bytes of float64 in base64; `routes` say where each token went, -1 for a dropped one. `errors` is
what PyTorch's own float32 gradients are off by: the Euclidean distance, divided by the norm, or by that of all gradients where a
tensor's own is 0 but for rounding (a key's bias adds the same to all of a query's scores); the greatest of several runs that order
the hidden state's elements differently, which changes nothing but how numbers round.

`noam.json` has the weights after steps of labml's Noam, with clipping, from gradients that are functions of a seed: in float64, and
how far float32's are off.
"""

import base64
import copy
import json
import pathlib
import sys
import types
from importlib.metadata import version

import numpy as np
import torch

# labml_nn's datasets import it, and nothing that is used here does.
torchvision = types.ModuleType("torchvision")
torchvision.datasets = torchvision.transforms = types.ModuleType("torchvision.unused")
torchvision.transforms.__getattr__ = lambda name: object
sys.modules.setdefault("torchvision", torchvision)

import labml.tracker

# labml_nn calls it for debugging; the labml beside it has it no more.
if not hasattr(labml.tracker, "debug"):
    labml.tracker.debug = lambda *_: None

from labml_nn.optimizers.noam import Noam
from labml_nn.transformers import MultiHeadAttention
from labml_nn.transformers.feed_forward import FeedForward
from labml_nn.transformers.switch import SwitchFeedForward, SwitchTransformer, SwitchTransformerLayer
from labml_nn.transformers.switch.experiment import AutoregressiveModel

PINNED = {"labml_nn": "0.5.1", "torch": "2.13.0"}
OUT = pathlib.Path(__file__).parent.parent / "SwitchTrainingTests" / "Fixtures" / "labml"
RUNS = 12
SIZES = dict(n_tokens=11, d_model=12, heads=3, d_ff=16, n_layers=2, n_experts=3, capacity_factor=1.0, drop_tokens=False,
             is_scale_prob=True)


def case(length=9, sequences=3, **changes):
    return dict(length=length, sequences=sequences, model={**SIZES, **changes})


CASES = {
    "plain": case(),
    "unscaled": case(is_scale_prob=False),
    "dropped": case(drop_tokens=True, capacity_factor=1.2),
    "dropped-unscaled": case(drop_tokens=True, capacity_factor=0.5, is_scale_prob=False, n_experts=2),
    "one-token": case(length=1, sequences=1, n_layers=1),
    "many-experts": case(n_experts=7, d_ff=5, n_layers=1, d_model=8, heads=1),
}


def numbers(count, seed):
    """TrainingCase.number for 0 ..< count."""
    mask = 0xFFFFFFFF
    x = (np.arange(count, dtype=np.uint64) * 0x9E3779B9 + np.uint64((seed * 0x85EBCA6B) & mask)) & mask
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & mask
    x = ((x ^ (x >> 15)) * 0x846CA68B) & mask
    x = x ^ (x >> 16)
    return x.astype(np.uint32).view(np.int32).astype(np.float64) * 2.0**-31


def named(name, seed):
    own = (seed * 31) & 0xFFFFFFFF
    for byte in name.encode():
        own = ((own ^ byte) * 0x01000193) & 0xFFFFFFFF
    return own


def weight(name, shape):
    """TrainingCase.weights for one tensor."""
    values = numbers(int(np.prod(shape)), named(name, 1))
    if "norm" in name:
        values = 0.3 * values if name.endswith(".bias") else 1 + 0.3 * values
    elif name not in ("src_embed.weight", "generator.weight", "generator.bias"):
        values = values * 1.5 / np.sqrt(np.float64(shape[-1]))
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def tokens(count, index, offset, vocabulary):
    """TrainingCase.examples."""
    values = numbers(1000 * index + offset + count, 5)[1000 * index + offset:]
    return [min(int((v * 0.5 + 0.5) * (vocabulary - 1)), vocabulary - 2) + 1 for v in values]


def make(sizes):
    experts = SwitchFeedForward(
        capacity_factor=sizes["capacity_factor"], drop_tokens=sizes["drop_tokens"], is_scale_prob=sizes["is_scale_prob"],
        n_experts=sizes["n_experts"], expert=FeedForward(sizes["d_model"], sizes["d_ff"], 0.0), d_model=sizes["d_model"])
    layer = SwitchTransformerLayer(
        d_model=sizes["d_model"], attn=MultiHeadAttention(sizes["heads"], sizes["d_model"], 0.0), feed_forward=experts,
        dropout_prob=0.0)
    model = AutoregressiveModel(sizes["n_tokens"], sizes["d_model"], SwitchTransformer(layer, sizes["n_layers"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weight(name, tuple(parameter.shape)))
    return model


def reorder(name, values, order):
    """A tensor of the model whose hidden state has its elements in another order."""
    if name == "src_embed.weight" or name == "generator.weight":
        return values[:, order]
    if "norm" in name or ".output." in name or ".layer2." in name:
        return values[order]
    if values.ndim == 2:
        return values[:, order]
    return values


def step(test, dtype, order=None):
    """Loss, gradients and each layer's routes of one step of labml's experiment."""
    sizes = test["model"]
    model = make(sizes).to(dtype)
    if order is not None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(reorder(name, parameter.clone(), order))
    length, sequences = test["length"], test["sequences"]
    data, target = (
        torch.tensor([tokens(length, i, offset, sizes["n_tokens"]) for i in range(sequences)]).t().contiguous()
        for offset in (0, 500))
    chosen, drawn = [], []
    for layer in model.transformer.layers:
        layer.feed_forward.softmax.register_forward_hook(
            lambda module, inputs, output: (chosen.append(output.argmax(-1)), drawn.append([])) and None)
    generator = torch.Generator().manual_seed(4)
    original = torch.randperm

    def randperm(count):
        drawn[-1].append(original(count, generator=generator))
        return drawn[-1][-1]

    torch.randperm = randperm
    try:
        output, counts, route_prob, _, _ = model(data)
    finally:
        torch.randperm = original
    total = counts.sum(dim=-1, keepdims=True)
    balance = sizes["n_experts"] * ((counts / total) * (route_prob / total)).sum()
    loss = torch.nn.functional.cross_entropy(output.view(-1, output.shape[-1]), target.view(-1)) + 0.01 * balance
    loss.backward()
    routes = []
    for choice, permutations in zip(chosen, drawn):
        route, capacity = choice.clone(), int(sizes["capacity_factor"] * choice.numel() / sizes["n_experts"])
        for expert in range(sizes["n_experts"]):
            places = (choice == expert).nonzero(as_tuple=True)[0]
            if sizes["drop_tokens"] and len(places) > capacity:
                route[places[permutations.pop(0)][capacity:]] = -1
        # labml's rows are positions of all sequences, the trainer's are sequences.
        routes.append(route.view(length, sequences).t().reshape(-1).tolist())
    back = None if order is None else torch.argsort(order)
    gradients = {
        name: (p.grad if back is None else reorder(name, p.grad, back)).double().numpy().ravel()
        for name, p in model.named_parameters()}
    return loss.item(), gradients, routes


def encoded(values):
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f8").tobytes()).decode()


def write_case(name, test):
    loss, gradients, routes = step(test, torch.float64)
    width = test["model"]["d_model"]
    orders = [None] + [torch.randperm(width, generator=torch.Generator().manual_seed(k)) for k in range(RUNS - 1)]
    runs = [step(test, torch.float32, order) for order in orders]
    if any(run[2] != routes for run in runs):
        raise SystemExit(f"{name}: float32 chose other routes; take another case")
    whole = np.sqrt(sum(float(v @ v) for v in gradients.values()))
    entry = dict(length=test["length"], sequences=test["sequences"], loss=loss, norm=whole, routes=routes, gradients={}, errors={})
    entry["model"] = dict(model_type="labml_switch", **test["model"])
    for key, value in sorted(gradients.items()):
        norm = np.linalg.norm(value)
        distance = max(float(np.linalg.norm(own[key] - value)) for _, own, _ in runs)
        entry["gradients"][key] = encoded(value)
        entry["errors"][key] = distance / (norm if norm > 1e-9 * whole else whole)
    (OUT / f"{name}.json").write_text(json.dumps(entry) + "\n")


def noam(dtype, steps):
    sizes = {**SIZES, "n_layers": 1}
    model = make(sizes).to(dtype)
    optimizer = Noam(model.parameters(), lr=1.0, eps=1e-8, warmup=4, d_model=sizes["d_model"])
    norms = []
    for number in range(steps):
        for name, parameter in model.named_parameters():
            values = numbers(parameter.numel(), named(name, 50 + number)).astype(np.float32) * np.float32(0.2)
            # An expert without a token has zeros.
            if number == 1 and ".experts.1." in name:
                values = values * 0
            parameter.grad = torch.from_numpy(values).to(dtype).view(parameter.shape)
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0).item())
        optimizer.step()
    return {name: p.detach().double().numpy().ravel() for name, p in model.named_parameters()}, norms


def write_noam(steps=6):
    weights, norms = noam(torch.float64, steps)
    own, _ = noam(torch.float32, steps)
    entry = dict(model=dict(model_type="labml_switch", **{**SIZES, "n_layers": 1}), steps=steps, warmup=4, norms=norms,
                 weights={k: encoded(v) for k, v in sorted(weights.items())},
                 errors={k: float(np.linalg.norm(own[k] - v) / np.linalg.norm(v)) for k, v in sorted(weights.items())})
    (OUT / "noam.json").write_text(json.dumps(entry) + "\n")


def main():
    for name, wanted in PINNED.items():
        found = version(name.replace("_", "-")).split("+")[0]
        if found != wanted:
            raise SystemExit(f"{name} is {found}; install {name}=={wanted}")
    OUT.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, test in CASES.items():
        write_case(name, copy.deepcopy(test))
    write_noam()


if __name__ == "__main__":
    main()
