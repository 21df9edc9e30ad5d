# SPDX-License-Identifier: Apache-2.0
"""Trains labml's Switch Transformer with labml_nn's own experiment code, and prints its held-out losses and times as JSON.

    python labml_peer.py --text scenes.txt --steps 400 --seed 1 --threads 1 [--size d_model=64 --size n_layers=3] [--eval-every 100]

The model, its loss and a step are those of `labml_nn/transformers/switch/experiment.py` (`Configs.step`, with its tracker silenced),
the windows and their order those of `labml_nn/helpers/datasets.py` and of `shuffled_train_loader`, the optimizer labml's Noam as
`OptimizerConfigs` makes it. The last tenth of the text is held out, as labml's `TextFileDataset` does. Held-out losses are without
dropped tokens, over windows one after the other. Needs labml_nn 0.5.1 and torch; times are of training steps alone.
"""

import argparse
import json
import random
import sys
import time
import types
from types import SimpleNamespace

torchvision = types.ModuleType("torchvision")
torchvision.datasets = torchvision.transforms = types.ModuleType("torchvision.unused")
torchvision.transforms.__getattr__ = lambda name: object
sys.modules.setdefault("torchvision", torchvision)

import labml.tracker

for name in ("add", "save", "add_global_step", "set_scalar", "debug"):
    setattr(labml.tracker, name, lambda *_, **__: None)

import torch
from labml_nn.experiments.nlp_autoregression import CrossEntropyLoss, transpose_batch
from labml_nn.helpers.datasets import SequentialUnBatchedDataset, TextFileDataset
from labml_nn.optimizers.noam import Noam
from labml_nn.transformers.switch import experiment
from torch.utils.data import DataLoader, RandomSampler


def settings():
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", action="append", default=[])
    parser.add_argument("--eval-every", type=int, default=0)
    parser.add_argument("--warmup", type=int, default=2000)
    return parser.parse_args()


def main():
    args = settings()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    text = TextFileDataset(args.text, list)
    c = SimpleNamespace(
        d_model=128, heads=4, dropout=0.0, d_ff=256, n_layers=6, n_experts=4, is_scale_prob=True, drop_tokens=True,
        capacity_factor=1.2, load_balancing_loss_ceof=0.01, grad_norm_clip=1.0, seq_len=64, batch_size=32,
        device=torch.device("cpu"), n_tokens=text.n_tokens, loss_func=CrossEntropyLoss(), mode=SimpleNamespace(is_train=True))
    for size in args.size:
        key, value = size.split("=")
        setattr(c, key, type(getattr(c, key))(json.loads(value)))
    accuracy = lambda *_: None
    accuracy.track = lambda: None
    c.accuracy = accuracy
    c.transformer = experiment.switch_transformer(c)
    c.model = experiment.autoregressive_model(c)
    c.optimizer = Noam(c.model.parameters(), lr=1.0, betas=(0.9, 0.999), eps=1e-8, warmup=args.warmup, d_model=c.d_model)
    data = SequentialUnBatchedDataset(text=text.train, dataset=text, seq_len=c.seq_len)
    loader = DataLoader(data, batch_size=c.batch_size, collate_fn=transpose_batch, sampler=RandomSampler(data))
    held = SequentialUnBatchedDataset(text=text.valid, dataset=text, seq_len=c.seq_len, is_random_offset=False)
    held = DataLoader(held, batch_size=64, collate_fn=transpose_batch)

    def evaluate():
        drops = []
        for module in c.model.modules():
            if hasattr(module, "drop_tokens"):
                drops.append(module)
                module.drop_tokens = False
        loss = count = 0
        with torch.no_grad():
            for inputs, target in held:
                loss += c.loss_func(c.model(inputs)[0], target).item() * target.numel()
                count += target.numel()
        for module in drops:
            module.drop_tokens = c.drop_tokens
        return loss / count

    losses, tokens, wall, processor, step = {0: evaluate()}, 0, 0.0, 0.0, 0
    last = SimpleNamespace(is_last=False)
    while step < args.steps:
        for batch in loader:
            start, start_processor = time.perf_counter(), time.process_time()
            experiment.Configs.step(c, batch, last)
            wall += time.perf_counter() - start
            processor += time.process_time() - start_processor
            tokens += batch[0].numel()
            step += 1
            if step == args.steps or (args.eval_every and step % args.eval_every == 0):
                losses[step] = evaluate()
            if step == args.steps:
                break
    print(json.dumps(dict(seed=args.seed, losses=losses, tokens=tokens, seconds=wall, processor_seconds=processor,
                          tokens_per_second=tokens / wall, tokens_per_processor_second=tokens / processor)))


if __name__ == "__main__":
    main()
