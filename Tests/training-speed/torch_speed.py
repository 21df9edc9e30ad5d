# SPDX-License-Identifier: Apache-2.0
"""Computes gradients of the same batches with PyTorch and with `training-speed`, in turn, on two threads.

    python torch_speed.py MODEL TRAINING-SPEED [batch] [steps] [rounds]

Batches are like those of the miniature's training: spans of 12 to 72 tokens with span corruption. Neither side has an
optimizer. PyTorch pads, as it must.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from transformers import SwitchTransformersForConditionalGeneration

model_path, program = sys.argv[1:3]
size, steps, rounds = (int(value) for value in (sys.argv[3:6] + ["48", "20", "3"][len(sys.argv) - 3:]))
torch.set_num_threads(2)
model = SwitchTransformersForConditionalGeneration.from_pretrained(model_path, dtype=torch.float32)
vocabulary = model.config.vocab_size
rng = np.random.default_rng(1)


def example():
    length = int(rng.integers(12, 73))
    noise = max(1, round(length * rng.uniform(0.10, 0.22)))
    spans = max(1, round(noise / rng.choice([1.5, 3.0])))
    return (rng.integers(3, vocabulary, length - noise + spans + 1).tolist(),
            rng.integers(3, vocabulary, noise + spans + 2).tolist())


batches = [[example() for _ in range(size)] for _ in range(steps)]
path = os.path.join(tempfile.mkdtemp(), "batches.json")
with open(path, "w") as file:
    json.dump(batches, file)


def tensors(pairs):
    longest = [max(len(pair[i]) for pair in pairs) for i in (0, 1)]
    ids = torch.zeros(len(pairs), longest[0], dtype=torch.long)
    labels = torch.full((len(pairs), longest[1]), -100)
    for row, (source, target) in enumerate(pairs):
        ids[row, :len(source)] = torch.tensor(source)
        labels[row, :len(target)] = torch.tensor(target)
    return ids, labels


routed = []
for name, module in model.named_modules():
    if name.endswith("mlp.router"):
        module.expert_capacity = 100_000
        module.register_forward_hook(lambda module, inputs, outputs: routed.append((outputs[0], outputs[2])))
model.train()


def step(ids, labels):
    routed.clear()
    output = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels)
    balance = 0.0
    for mask, logits in routed:
        share = mask.float().reshape(-1, mask.shape[-1]).mean(0)
        balance = balance + mask.shape[-1] * (share * logits.softmax(-1).reshape(-1, mask.shape[-1]).mean(0)).sum()
    model.zero_grad(set_to_none=True)
    (output.loss + 0.01 * balance).backward()
    return output.loss.item()


tokens = sum(len(part) for pairs in batches for pair in pairs for part in pair)
step(*tensors(batches[0]))
for _ in range(rounds):
    start = time.time()
    loss = sum(step(*tensors(pairs)) for pairs in batches) / steps
    seconds = time.time() - start
    print(f"torch {steps / seconds:.1f} steps/s  {tokens / seconds:.0f} tokens/s  loss {loss:.6f}", flush=True)
    subprocess.run([program, model_path, path, "2"], check=True)
