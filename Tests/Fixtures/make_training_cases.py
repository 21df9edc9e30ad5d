# SPDX-License-Identifier: Apache-2.0
"""Writes the gradients that PyTorch computes for tiny models: ../SwitchTrainingTests/Fixtures/gradients/NAME.json, and those
of peft's LoRA matrices: ../SwitchTrainingTests/Fixtures/lora/NAME.json, beside the adapter as peft saves it.

    python make_training_cases.py [NAME ...]

Weights and batches are functions of a seed that the tests compute too. `loss` and `gradients` are those of transformers' modules
in float64, each tensor's gradient as its norm and its projections on a few vectors. The modules compute norms' means and routers in float32 whatever the
model's type; for these runs both are float64. `errors` is what PyTorch's own float32 gradients, of the modules as they are, are
off by: the Euclidean distance, divided by the norm; the greatest of several runs that order the hidden state's elements
differently, which changes nothing but how numbers round. The float32 runs follow the float64 run's routes.
Cases with an adapter need peft 0.21.2.

../SwitchTrainingTests/Fixtures/bfloat16/NAME.json has the errors of a bfloat16 model whose routers are float32, for some of the cases.
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from transformers import (
    SwitchTransformersConfig, SwitchTransformersForConditionalGeneration, T5Config, T5ForConditionalGeneration,
)
from transformers.models.switch_transformers import modeling_switch_transformers as switch
from transformers.models.t5 import modeling_t5 as t5

from reference import require_pinned_versions

OUT = pathlib.Path(__file__).parent.parent / "SwitchTrainingTests" / "Fixtures" / "gradients"
SIZES = dict(vocab_size=23, d_model=16, d_kv=6, d_ff=20, num_heads=3, num_layers=2, num_decoder_layers=2)
SWITCH = dict(num_experts=4, encoder_sparse_step=2, decoder_sparse_step=2, expert_capacity=64)
LORA = OUT.parent / "lora"
BFLOAT16 = OUT.parent / "bfloat16"
PEFT_VERSION = "0.21.2"
RUNS = 16
LENGTHS = [[9, 6], [1, 2], [14, 1], [6, 11]]


def case(family="switch", settings=None, lengths=LENGTHS, lora=None, **changes):
    return dict(family=family, settings=settings or {}, lengths=lengths, lora=lora, model=changes)


CASES = {
    "plain": case(),
    "untied": case(tie_word_embeddings=False),
    "router-bias": case(router_bias=True, settings=dict(routerZ=0.1)),
    "every-layer": case(encoder_sparse_step=1, decoder_sparse_step=1, num_experts=3),
    "step-three": case(num_layers=5, num_decoder_layers=4, encoder_sparse_step=3, decoder_sparse_step=3, d_model=12),
    "capacity": case(expert_capacity=2, num_experts=3),
    "smoothing": case(settings=dict(labelSmoothing=0.1)),
    "softmax-z": case(settings=dict(softmaxZ=0.01)),
    "router-z": case(settings=dict(routerZ=0.05, balance=0.2)),
    "pooled": case(settings=dict(routerLosses="transformers", routerZ=0.05, balance=0.2), num_layers=4),
    "one-token": case(lengths=[[1, 1]]),
    "long": case(lengths=[[170, 20], [3, 150]], d_model=8, d_kv=4, num_heads=2, d_ff=8),
    "asymmetric": case(d_model=10, d_kv=7, num_heads=1, d_ff=33, num_layers=1, num_decoder_layers=3),
    "many-experts": case(num_experts=9, d_ff=5, lengths=[[30, 12], [8, 8]]),
    "gelu-experts": case(dense_act_fn="gelu", d_model=12),
    "t5": case(family="t5", feed_forward_proj="relu"),
    "t5-gated-gelu": case(family="t5", feed_forward_proj="gated-gelu"),
    "t5-gated-silu": case(family="t5", feed_forward_proj="gated-silu"),
    "t5-tanh": case(family="t5", feed_forward_proj="tanh"),
    "t5-relu6": case(family="t5", feed_forward_proj="relu6"),
    "t5-relu2": case(family="t5", feed_forward_proj="relu2", num_layers=3, num_decoder_layers=1),
    "t5-quick-gelu": case(family="t5", feed_forward_proj="gated-quick_gelu"),
    "wide": case(d_model=64, d_kv=16, num_heads=4, d_ff=96, lengths=[[40, 25], [17, 30]]),
    "taught": case(family="t5", settings=dict(teacher=dict(kept=23, weight=0.25, temperature=1))),
    "taught-few": case(family="t5", settings=dict(teacher=dict(kept=5, weight=0.25, temperature=1), labelSmoothing=0.1)),
    "taught-hot": case(settings=dict(teacher=dict(kept=7, weight=0.6, temperature=2.5)), tie_word_embeddings=False),
    "taught-alone": case(family="t5", settings=dict(teacher=dict(kept=3, weight=1, temperature=0.7))),
    "lora-attention": case(lora=dict(r=2, lora_alpha=3, target_modules=["q", "v"])),
    "lora-experts": case(lora=dict(r=3, lora_alpha=5, use_rslora=True, target_modules=["wi", "wo"]), num_experts=6),
    "lora-all": case(lora=dict(r=5, lora_alpha=2, target_modules="all-linear"), settings=dict(routerZ=0.1)),
    "lora-t5": case(family="t5", feed_forward_proj="gated-gelu", lora=dict(r=17, lora_alpha=17, target_modules=["o", "wi_1"])),
    "lora-head": case(tie_word_embeddings=False, lora=dict(r=4, lora_alpha=6, target_modules=["k", "lm_head"])),
}
# Cases that are run in bfloat16 too.
NARROW = ["plain", "untied", "every-layer", "gelu-experts", "wide", "t5-gated-gelu"]


def numbers(count, seed):
    """TrainingCase.number for 0 ..< count."""
    mask = 0xFFFFFFFF
    x = (np.arange(count, dtype=np.uint64) * 0x9E3779B9 + np.uint64((seed * 0x85EBCA6B) & mask)) & mask
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & mask
    x = ((x ^ (x >> 15)) * 0x846CA68B) & mask
    x = x ^ (x >> 16)
    return x.astype(np.uint32).view(np.int32).astype(np.float64) * 2.0**-31


def weight(name, shape, seed):
    """TrainingCase.weights for one tensor."""
    own = (seed * 31) & 0xFFFFFFFF
    for byte in name.encode():
        own = ((own ^ byte) * 0x01000193) & 0xFFFFFFFF
    values = numbers(int(np.prod(shape)), own)
    if "lora_" in name:
        values = values / np.sqrt(np.float64(shape[-1]))
    elif "norm" in name:
        values = 1 + 0.3 * values
    elif "relative" in name:
        values = 0.5 * values
    elif name not in ("shared.weight", "lm_head.weight"):
        values = values * 1.5 / np.sqrt(np.float64(shape[-1]))
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def examples(lengths, vocabulary, seed):
    """TrainingCase.examples."""
    def tokens(count, index, offset):
        values = numbers(1000 * index + offset + count, seed)[1000 * index + offset:]
        return [min(int((v * 0.5 + 0.5) * (vocabulary - 1)), vocabulary - 2) + 1 for v in values]
    return [(tokens(a, i, 0), tokens(b, i, 500)) for i, (a, b) in enumerate(lengths)]


def teacher_answer(places, vocabulary, settings, seed):
    """TrainingCase.teacher: for each place ids, ascending, and their log-probabilities as float32 numbers in float64."""
    logits = torch.from_numpy(4 * numbers(places * vocabulary, seed).reshape(places, vocabulary) / settings["temperature"])
    logprobs = torch.log_softmax(logits, -1)
    tokens = logits.argsort(-1, descending=True)[:, :settings["kept"]].sort(-1).values
    return tokens, logprobs.gather(-1, tokens).float().double()


def divergence(logits, pairs, settings):
    """The mean divergence from the teacher's answers: over the tokens that they name, and all others as one."""
    loss, row = 0, 0
    for index, (_, target) in enumerate(pairs):
        tokens, logprobs = teacher_answer(len(target), logits.shape[-1], settings, 900 + index)
        own = torch.log_softmax(logits[row:row + len(target)] / settings["temperature"], -1)
        row += len(target)
        shares = logprobs.exp()
        loss = loss + (shares.to(own.dtype) * (logprobs.to(own.dtype) - own.gather(-1, tokens))).sum()
        rest = 1 - shares.sum(-1)
        if settings["kept"] < logits.shape[-1]:
            others = own.masked_fill(torch.zeros_like(own).scatter(-1, tokens, 1).bool(), -torch.inf).logsumexp(-1)
            loss = loss + (rest.to(own.dtype) * (rest.log().to(own.dtype) - others)).sum()
    return loss / row


def norm_in_own_type(self, x):
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


class Routers:
    """Follows the routers of a model: keeps their logits and routes, or makes them follow given ones."""

    def __init__(self, model, given=None):
        self.logits, self.routes = [], []
        names = [name for name, module in model.named_modules() if isinstance(module, switch.SwitchTransformersTop1Router)]
        self.order = sorted(names, key=lambda name: (name.startswith("decoder"), int(name.split(".")[2])))
        self.given = given
        for name in names:
            model.get_submodule(name).register_forward_hook(self.hook(name))
        self.kept = {}

    def hook(self, name):
        def follow(module, inputs, outputs):
            mask, probabilities, logits = outputs
            if self.given is not None:
                all_probabilities = torch.softmax(logits, -1)
                choice, mask = self.given[name]
                probabilities = all_probabilities.gather(-1, choice.unsqueeze(-1)).to(probabilities.dtype)
            else:
                choice = torch.softmax(logits, -1).argmax(-1)
            self.kept[name] = (choice, mask, logits)
            return mask, probabilities, logits
        return follow

    def routes_of(self):
        return {name: (choice, mask) for name, (choice, mask, _) in self.kept.items()}


def router_losses(routers, settings, valid, config):
    form = settings.get("routerLosses", "paper")
    groups = [[name] for name in routers.order]
    if form == "transformers":
        groups = [[n for n in routers.order if n.startswith(stack)] for stack in ("encoder", "decoder")]
        steps = {"encoder": config.encoder_sparse_step, "decoder": config.decoder_sparse_step}
        groups = [g for g in groups if g and steps[g[0].split(".")[0]] > 1]
    total = 0
    for group in groups:
        logits = torch.cat([routers.kept[n][2][valid[n.split(".")[0]]] for n in group])
        choices = torch.cat([routers.kept[n][0][valid[n.split(".")[0]]] for n in group])
        experts = logits.shape[-1]
        share = torch.nn.functional.one_hot(choices, experts).to(logits.dtype).mean(0)
        balance = experts * (share * torch.softmax(logits, -1).mean(0)).sum()
        z = (torch.logsumexp(logits, -1) ** 2).mean()
        total = total + settings.get("balance", 0.01) * balance + settings.get("routerZ", 0) * z
    return total


def reorder(name, values, order):
    """A tensor of the model whose hidden state has its elements in another order."""
    if values.ndim == 1:
        return values[order] if "norm" in name else values
    if "lora_" in name:
        is_output = name.split(".lora_")[0].rsplit(".", 1)[-1] in ("o", "wo")
        if "lora_A" in name:
            return values if is_output else values[:, order]
        return values[order] if is_output else values
    if "relative" in name:
        return values
    return values[order] if name.endswith((".o.weight", ".wo.weight")) else values[:, order]


def plain(name):
    """The name that a tensor of an adapter has in its file."""
    return name.replace(".default.", ".")


def adapt(model, settings, order):
    """The model with a LoRA adapter whose matrices are functions of their names."""
    import peft
    if peft.__version__ != PEFT_VERSION:
        raise SystemExit(f"peft is {peft.__version__}; install peft=={PEFT_VERSION}")
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_2_SEQ_LM", **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                values = weight(plain(name), tuple(parameter.shape), 1)
                parameter.copy_(values if order is None else reorder(plain(name), values, order))
    return model


def build(test, dtype, given=None, order=None):
    if test["family"] == "switch":
        config = SwitchTransformersConfig(**{**SIZES, **SWITCH, **test["model"]}, dropout_rate=0.0, router_jitter_noise=0.0,
                                          decoder_start_token_id=0)
        config._attn_implementation = "eager"
        model = SwitchTransformersForConditionalGeneration(config)
    else:
        config = T5Config(**{**SIZES, **test["model"]}, dropout_rate=0.0, decoder_start_token_id=0)
        config._attn_implementation = "eager"
        model = T5ForConditionalGeneration(config)
    # Without tied embeddings, transformers gives each stack a copy of its own; a checkpoint has one.
    model.encoder.embed_tokens = model.decoder.embed_tokens = model.shared
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = weight(name, tuple(parameter.shape), 1)
            parameter.copy_(values if order is None else reorder(name, values, order))
    base = model
    if test["lora"]:
        model = adapt(model, test["lora"], order)
    model = model.to(dtype)
    model.train()
    routers = None
    if test["family"] == "switch":
        for module in base.modules():
            if isinstance(module, switch.SwitchTransformersTop1Router):
                module.dtype = torch.float32 if dtype == torch.bfloat16 else dtype
        if dtype == torch.bfloat16:
            for name, parameter in base.named_parameters():
                if ".router." in name:
                    values = weight(name, tuple(parameter.shape), 1)
                    parameter.data = values if order is None else reorder(name, values, order)
        routers = Routers(base, given)
    return model, config, routers


def step(test, dtype, given=None, order=None):
    model, config, routers = build(test, dtype, given, order)
    pairs = examples(test["lengths"], config.vocab_size, 5)
    longest = [max(len(p[i]) for p in pairs) for i in (0, 1)]
    ids = torch.zeros(len(pairs), longest[0], dtype=torch.long)
    labels = torch.full((len(pairs), longest[1]), -100)
    for row, (source, target) in enumerate(pairs):
        ids[row, :len(source)] = torch.tensor(source)
        labels[row, :len(target)] = torch.tensor(target)
    mask = torch.zeros_like(ids)
    for row, (source, _) in enumerate(pairs):
        mask[row, :len(source)] = 1
    logits = model(input_ids=ids, attention_mask=mask, labels=labels).logits
    if dtype == torch.bfloat16:
        logits = logits.float()
    settings = test["settings"]
    loss = torch.nn.functional.cross_entropy(
        logits.view(-1, logits.shape[-1]), labels.view(-1), label_smoothing=settings.get("labelSmoothing", 0.0))
    valid = {"encoder": mask.bool(), "decoder": labels != -100}
    if settings.get("softmaxZ"):
        loss = loss + settings["softmaxZ"] * (torch.logsumexp(logits[valid["decoder"]], -1) ** 2).mean()
    if settings.get("teacher"):
        teacher = settings["teacher"]
        apart = divergence(logits[valid["decoder"]], pairs, teacher)
        loss = (1 - teacher["weight"]) * loss + teacher["weight"] * teacher["temperature"] ** 2 * apart
    if routers:
        loss = loss + router_losses(routers, settings, valid, config)
    loss.backward()
    back = None if order is None else torch.argsort(order)
    gradients = {
        plain(name): None if p.grad is None else (p.grad if back is None else reorder(plain(name), p.grad, back)).double().numpy().ravel()
        for name, p in model.named_parameters()
    }
    return loss.item(), gradients, routers, valid


def greatest_error(runs, key, value):
    """The greatest distance of some runs' gradients of a tensor from the true one, divided by its norm."""
    norm = np.linalg.norm(value)
    distance = max(float(np.linalg.norm(own[key] - value)) for _, own, _, _ in runs)
    return distance / norm if norm > 0 else distance


def write(name, test):
    originals = switch.SwitchTransformersLayerNorm.forward, t5.T5LayerNorm.forward
    switch.SwitchTransformersLayerNorm.forward = t5.T5LayerNorm.forward = norm_in_own_type
    loss, gradients, routers, valid = step(test, torch.float64)
    switch.SwitchTransformersLayerNorm.forward, t5.T5LayerNorm.forward = originals
    given = routers.routes_of() if routers else None
    width = test["model"].get("d_model", SIZES["d_model"])
    orders = [None] + [torch.randperm(width, generator=torch.Generator().manual_seed(k)) for k in range(RUNS - 1)]
    runs = [step(test, torch.float32, given, order) for order in orders]
    own_loss = runs[0][0]
    entry = dict(family=test["family"], model={**SIZES, **(SWITCH if routers else {}), **test["model"]}, settings=test["settings"],
                 lengths=test["lengths"], loss=loss, lossError=abs(own_loss - loss) / abs(loss), gradients={}, errors={}, routes={})
    for key, value in sorted(gradients.items()):
        # An expert that saw padding alone has zeros, one that saw nothing has none.
        if value is None or not value.any():
            continue
        norm = np.linalg.norm(value)
        entry["gradients"][key] = [norm] + [float(value @ numbers(value.size, 100 + k)) for k in range(4)]
        entry["errors"][key] = greatest_error(runs, key, value)
    for layer, (choice, mask) in (given or {}).items():
        stack = layer.split(".")[0]
        routes = torch.where(mask.sum(-1) > 0, choice, -1)[valid[stack]]
        entry["routes"][stack + " " + layer.split(".")[2]] = routes.tolist()
    out = OUT
    if test["lora"]:
        out = LORA
        entry["lora"] = test["lora"]
        build(test, torch.float32)[0].save_pretrained(out / name, save_embedding_layers=False)
        (out / name / "README.md").unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(entry, sort_keys=True, separators=(",", ":")) + "\n")
    print(name, loss, len(gradients), max(entry["errors"].values()))
    if name in NARROW:
        runs = [step(test, torch.bfloat16, given, order) for order in orders]
        narrow = dict(lossError=max(abs(run[0] - loss) for run in runs) / abs(loss),
                      errors={key: greatest_error(runs, key, gradients[key]) for key in entry["errors"]})
        BFLOAT16.mkdir(parents=True, exist_ok=True)
        (BFLOAT16 / f"{name}.json").write_text(json.dumps(narrow, sort_keys=True, separators=(",", ":")) + "\n")
        print(name, "bfloat16", narrow["lossError"], max(narrow["errors"].values()))


def main():
    require_pinned_versions()
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CASES:
        write(name, CASES[name])


if __name__ == "__main__":
    main()
