# SPDX-License-Identifier: Apache-2.0
"""Makes labml/: what labml_nn's decoder-only Switch Transformer computes, for models of two sizes.

    python make_labml_cases.py

Needs labml_nn 0.5.1 and torch 2.13.0, at the time when fixtures are made and never afterwards.

`tiny` is a whole checkpoint: the `state_dict` as torch saves it. `original` has the sizes of labml's experiment, eight
megabytes of weights, of which only a recipe is kept: each weight is a function of its tensor's name and its place
(`draw`), which the tests compute too. Prompts whose continuation depends on rounding are left out.
"""

import contextlib
import json
import pathlib
import sys
import types

import numpy as np
import safetensors.torch
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

from labml_nn.transformers import MultiHeadAttention
from labml_nn.transformers.feed_forward import FeedForward
from labml_nn.transformers.switch import SwitchFeedForward, SwitchTransformer, SwitchTransformerLayer
from labml_nn.transformers.switch.experiment import AutoregressiveModel

LABML_VERSION = "0.5.1"
TORCH_VERSION = "2.13.0+cpu"
FOLDER = pathlib.Path(__file__).parent / "labml"

# labml's tiny Shakespeare has these 65.
SHAKESPEARE = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Letters of two, three and four bytes, an accent that joins the letter before it, and T5's sign for a space.
ODD = "\n abcdefghijké\u0301\u2581\u20ac\U0001f600"

MODELS = {
    "tiny": dict(characters=ODD, d_model=24, heads=3, d_ff=40, n_layers=3, n_experts=5),
    "original": dict(characters=SHAKESPEARE, d_model=128, heads=4, d_ff=256, n_layers=6, n_experts=4),
}

# How far the best logit must be from the next, and the best probability of a router, so that rounding decides nothing.
LOGIT_MARGIN = 1e-3
ROUTER_MARGIN = 1e-4


def splitmix(state):
    """SplitMix64's output for states, uint64 numbers."""
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def fnv(name):
    """FNV-1a of a name's bytes."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def draw(name, shape, scale, offset=0.0):
    """A tensor: element i is offset + scale * u, u from -1 to 1 with 23 bits, drawn by the name and i."""
    count = int(np.prod(shape))
    with np.errstate(over="ignore"):
        words = splitmix(np.uint64(fnv(name)) + np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    steps = (words >> np.uint64(40)).astype(np.int64) - 2**23
    values = np.float32(offset) + steps.astype(np.float32) * np.float32(scale * 2**-23)
    return torch.from_numpy(values.reshape(shape))


def scale(name, shape):
    """Scale and offset of a tensor: powers of two, so that tests get the same bits."""
    if "norm" in name:
        return (0.5, 1.0) if name.endswith("weight") else (0.25, 0.0)
    if name.endswith("bias"):
        return 0.25, 0.0
    if name == "src_embed.weight":
        return 2.0, 0.0
    deviation = (3 / shape[-1]) ** 0.5
    gain = {"query": 2, "key": 2, "switch": 2, "generator": 4, "layer2": 2}
    gain = next((value for part, value in gain.items() if f".{part}." in f".{name}."), 1)
    return 2.0 ** round(np.log2(deviation * gain)), 0.0


def make(config, **routing):
    """A model with the recipe's weights."""
    routing = dict(capacity_factor=1.0, drop_tokens=False, is_scale_prob=True) | routing
    feed_forward = SwitchFeedForward(
        n_experts=config["n_experts"], expert=FeedForward(config["d_model"], config["d_ff"], 0.0),
        d_model=config["d_model"], **routing,
    )
    layer = SwitchTransformerLayer(
        d_model=config["d_model"], attn=MultiHeadAttention(config["heads"], config["d_model"], 0.0),
        feed_forward=feed_forward, dropout_prob=0.0,
    )
    transformer = SwitchTransformer(layer, config["n_layers"])
    model = AutoregressiveModel(len(config["characters"]), config["d_model"], transformer).eval()
    state = {name: draw(name, tuple(value.shape), *scale(name, tuple(value.shape)))
             for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    return model


class Routes:
    """What the routers of a pass did: each layer's probabilities and dropped tokens, in labml's order of tokens."""

    def __init__(self, model):
        self.layers = [layer.feed_forward for layer in model.transformer.layers]
        self.probabilities = []

    @contextlib.contextmanager
    def recorded(self):
        self.probabilities = []
        hooks = [layer.softmax.register_forward_hook(lambda _m, _i, out: self.probabilities.append(out.clone()))
                 for layer in self.layers]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()


@contextlib.contextmanager
def permutations(permute):
    """Lets `permute` take the place of torch.randperm, by which labml chooses whom to drop."""
    original = torch.randperm
    torch.randperm = permute
    try:
        yield
    finally:
        torch.randperm = original


def texts(config, count, seed, longest):
    """Random texts of the model's characters."""
    random = np.random.default_rng(seed)
    return [random.integers(0, len(config["characters"]), random.integers(1, longest + 1)).tolist()
            for _ in range(count)]


@torch.no_grad()
def forward(model, config, tensors, prefix, sequences):
    """Logits, router probabilities, counts and sums of probabilities of sequences of one length, as labml batches them."""
    routes = Routes(model)
    with routes.recorded():
        logits, counts, sums, dropped, best = model(torch.tensor(sequences).T)
    # labml: [tokens, sequences, ...]; here one sequence after another.
    length, batch = len(sequences[0]), len(sequences)
    tensors[f"{prefix}.logits"] = logits.transpose(0, 1).reshape(batch * length, -1).contiguous()
    tensors[f"{prefix}.best"] = torch.stack([p.view(length, batch).T.reshape(-1) for p in best]).contiguous()
    tensors[f"{prefix}.counts"] = counts.contiguous()
    tensors[f"{prefix}.sums"] = sums.contiguous()
    return routes


@torch.no_grad()
def drops(config, tensors, name, **routing):
    """One pass with dropped tokens: as labml draws them over a batch, and in the order of one sequence's tokens."""
    entries = []
    for draws in (True, False):
        model = make(config, drop_tokens=True, **routing)
        sequences = [tokens for tokens in texts(config, 300, 7, 33) if len(tokens) >= 29]
        sequences = [tokens[:29] for tokens in sequences[: 3 if draws else 1]]
        kept = []

        def permute(count, *_, **__):
            order = torch.arange(count)
            if draws:
                order = original(count)
            kept.append(order)
            return order

        original = torch.randperm
        torch.manual_seed(11)
        prefix = f"drops.{name}.{'drawn' if draws else 'ordered'}"
        with permutations(permute):
            routes = forward(model, config, tensors, prefix, sequences)
        # Which tokens had no place, from the permutations, in labml's order of tokens and then in ours.
        length, batch = 29, len(sequences)
        capacity = int(routing["capacity_factor"] * length * batch / config["n_experts"])
        lost = []
        for probabilities in routes.probabilities:
            layer = []
            choices = probabilities.argmax(-1)
            for expert in range(config["n_experts"]):
                tokens = (choices == expert).nonzero()[:, 0]
                if len(tokens) > capacity:
                    layer += tokens[kept.pop(0)][capacity:].tolist()
            lost.append(sorted((token % batch) * length + token // batch for token in layer))
        assert not kept
        entries.append(dict(prefix=prefix, sequences=sequences, dropped=lost, drawn=draws, **routing))
    return entries


@torch.no_grad()
def greedy(model, config, count, length):
    """Prompts with their greedy continuations, those left out that depend on rounding."""
    results, refused = [], 0
    routes = Routes(model)
    for prompt in texts(config, 4 * count, 3, 40):
        tokens, is_certain = list(prompt), True
        for _ in range(length):
            with routes.recorded():
                logits = model(torch.tensor(tokens)[:, None])[0][-1, 0]
            top = logits.topk(2).values
            best = torch.cat([p.topk(2, dim=-1).values for p in routes.probabilities])
            is_certain &= bool(top[0] - top[1] > LOGIT_MARGIN and (best[:, 0] - best[:, 1]).min() > ROUTER_MARGIN)
            if not is_certain:
                break
            tokens.append(int(logits.argmax()))
        if is_certain:
            results.append([prompt, tokens[len(prompt):]])
        else:
            refused += 1
        if len(results) == count:
            return results, refused
    raise SystemExit(f"only {len(results)} of {4 * count} prompts do not depend on rounding")


def write(name, config):
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    model = make(config)
    tensors, goldens = {}, {}
    sequences = [tokens[:31] for tokens in texts(config, 400, 5, 45) if len(tokens) >= 31][:3]
    goldens["sequences"] = sequences
    forward(model, config, tensors, "batch", sequences)
    forward(make(config, is_scale_prob=False), config, tensors, "unscaled", sequences)
    goldens["drops"] = [
        entry for factor in (1.2, 0.5) for scaled in (True, False)
        for entry in drops(config, tensors, f"{factor}.{'scaled' if scaled else 'plain'}",
                           capacity_factor=factor, is_scale_prob=scaled)
    ]
    with torch.no_grad():
        prompts = texts(config, 6, 9, 20)
        goldens["sampling"] = prompts
        # Logits of a typical trained model are less far apart than the recipe's.
        tensors["sampling"] = torch.stack(
            [torch.softmax(model(torch.tensor(p)[:, None])[0][-1, 0].double() / 2, -1) for p in prompts]
        ).float()
    goldens["greedy"], goldens["left_out"] = greedy(model, config, 200, 24)
    safetensors.torch.save_file(tensors, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps(goldens, separators=(",", ":")) + "\n")
    settings = {"model_type": "labml_switch"} | config
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if name == "tiny":
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    print(name, "left out", goldens["left_out"], {p.name: p.stat().st_size for p in folder.iterdir()})


def write_objects():
    """A file as people save it by mistake: the module itself beside its weights."""
    folder = FOLDER / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    config = dict(characters="ab", d_model=2, heads=1, d_ff=2, n_layers=1, n_experts=1)
    torch.save({"model": FeedForward(2, 2), "epoch": 3}, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({"model_type": "labml_switch"} | config, indent=2) + "\n")


def main():
    import importlib.metadata

    version = importlib.metadata.version("labml_nn")
    if version != LABML_VERSION or torch.__version__ != TORCH_VERSION:
        raise SystemExit(
            f"labml_nn is {version} and torch {torch.__version__}; install labml_nn=={LABML_VERSION} torch=={TORCH_VERSION}"
        )
    torch.set_num_threads(1)
    for name, config in MODELS.items():
        write(name, config)
    write_objects()


if __name__ == "__main__":
    main()
