# SPDX-License-Identifier: Apache-2.0
"""Trains a model from scratch with PyTorch and transformers, as deploy/models/switch-mini/train_mini.py does.

    python torch_recipe.py DATA OUT --steps N --seed S

DATA is a folder of `examples.py`. OUT gets `metrics.jsonl`, in the form of `switchyard train`, and a checkpoint. Two things
differ from train_mini.py, so that both systems minimise the same: the load balancing loss leaves padding out, and the
schedule is transformers' cosine with a warm-up, by steps.
"""

import argparse
import json
import math
import os
import shutil
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration

from measure import read_examples, tensors


class ScaledAdam(torch.optim.Optimizer):
    """Adam whose step is in proportion to each tensor's root mean square: train_mini.py's."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(m=torch.zeros_like(p), v=torch.zeros_like(p), t=0)
                state["t"] += 1
                state["m"].lerp_(p.grad, 0.1)
                state["v"].mul_(0.99).addcmul_(p.grad, p.grad, value=0.01)
                mean = state["m"] / (1 - 0.9 ** state["t"])
                update = mean / ((state["v"] / (1 - 0.99 ** state["t"])).sqrt() + 1e-8)
                p.add_(update, alpha=-group["lr"] * max(1e-3, p.pow(2).mean().sqrt().item()))


class Routing:
    """The balance of a step's sparse layers, without padding."""

    def __init__(self, model):
        self.outputs = {}
        for name, module in model.named_modules():
            if name.endswith("mlp.router"):
                parts = name.split(".")
                module.register_forward_hook(self.hook(f"{parts[0]}/{parts[2]}"))

    def hook(self, layer):
        def keep(module, inputs, outputs):
            self.outputs[layer] = (outputs[0], outputs[2])

        return keep

    def balance(self, inputs, targets):
        """The sum over layers of N sum f P, which is 1 for each where experts are used evenly, and each layer's shares."""
        loss, shares = 0.0, {}
        for layer, (chosen, logits) in self.outputs.items():
            tokens = inputs if layer.startswith("encoder") else targets
            share = chosen[tokens].float().mean(0)
            loss = loss + share.numel() * (share * logits[tokens].softmax(-1).mean(0)).sum()
            shares[layer] = share
        return loss, shares


def batches(examples, size, seed):
    """Batches without end: a new order each epoch, and the next epoch fills an epoch's last batch."""
    rng, batch = np.random.default_rng(seed), []
    while True:
        for place in rng.permutation(len(examples)):
            batch.append(examples[place])
            if len(batch) == size:
                yield batch
                batch = []


def rate(options, step):
    if step < options.warm_up:
        return options.learning_rate * step / options.warm_up
    progress = (step - options.warm_up) / max(1, options.steps - options.warm_up)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class Report:
    """Means of the steps since the last line, each step counting by its target tokens."""

    def __init__(self):
        self.tokens, self.loss, self.balance, self.shares = 0, 0.0, 0.0, {}

    def add(self, tokens, loss, balance, shares):
        self.tokens += tokens
        self.loss += tokens * loss
        self.balance += tokens * balance
        for layer, share in shares.items():
            self.shares[layer] = self.shares.get(layer, 0) + tokens * share.detach()

    def line(self, step, seconds, cpu):
        layers = [{"layer": layer, "shares": (share / self.tokens).tolist()} for layer, share in self.shares.items()]
        return {"kind": "training", "step": step, "crossEntropy": self.loss / self.tokens,
                "balance": self.balance / self.tokens / max(1, len(layers)), "seconds": seconds,
                "cpuSeconds": cpu, "layers": layers}


def train(model, examples, options, log):
    routing, optimizer = Routing(model), ScaledAdam(model.parameters(), options.learning_rate)
    source, report = batches(examples, options.batch, options.seed), Report()
    model.train()
    start, cpu = time.monotonic(), time.process_time()
    for step in range(options.steps):
        ids, mask, labels = tensors(next(source))
        optimizer.param_groups[0]["lr"] = rate(options, step)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        balance, shares = routing.balance(mask.bool(), labels >= 0)
        optimizer.zero_grad(set_to_none=True)
        (loss + options.balance * balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        report.add(int((labels >= 0).sum()), loss.item(), balance.item(), shares)
        if (step + 1) % options.report_every == 0 or step + 1 == options.steps:
            line = report.line(step + 1, time.monotonic() - start, time.process_time() - cpu)
            log.write(json.dumps(line) + "\n")
            log.flush()
            report = Report()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--warm-up", type=int, default=100)
    parser.add_argument("--balance", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report-every", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    os.makedirs(options.out, exist_ok=True)
    model = SwitchTransformersForConditionalGeneration(SwitchTransformersConfig.from_pretrained(options.data))
    examples = read_examples(options.data, os.path.join(options.data, "train.jsonl"))
    with open(os.path.join(options.out, "metrics.jsonl"), "w") as log:
        train(model, examples, options, log)
    checkpoint = os.path.join(options.out, "latest")
    model.save_pretrained(checkpoint)
    for name in ["spiece.model", "generation_config.json"]:
        shutil.copy(os.path.join(options.data, name), checkpoint)


if __name__ == "__main__":
    main()
