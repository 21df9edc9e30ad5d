# SPDX-License-Identifier: Apache-2.0
"""Trains on the same batches with PyTorch and with `training-speed`, in turn, on the same cores: speed and peak memory.

    python torch_speed.py MODEL TRAINING-SPEED [--batch 48 | --target-tokens 512] [--optimizer adamw] [--rounds 5] ...

Batches are like those of the miniature's training: spans of tokens under span corruption, in which PyTorch pads, as it must;
with `--even` all examples are equally long, so that there is nothing to pad. A step is gradients, clipping and the
optimizer's update. Both sides do the same steps on the same batches, round by round; a different side begins each round. With `--alone`
only one side is in memory at a time, as a model of several gigabytes needs: then each round starts both programs anew.
Prints a Markdown table: medians, lowest and highest round, ratios, peak resident memory of each process.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

OPTIMIZERS = ["none", "adamw", "adamw-fused", "adafactor"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("program", help="training-speed")
    parser.add_argument("--batch", type=int, default=48, help="examples of a step")
    parser.add_argument("--target-tokens", type=int, help="tokens of targets of a step, instead of examples")
    parser.add_argument("--least", type=int, default=12, help="tokens of the shortest span of text")
    parser.add_argument("--most", type=int, default=72, help="tokens of the longest")
    parser.add_argument("--even", action="store_true", help="give all spans the same length")
    parser.add_argument("--steps", type=int, default=20, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw", help="adamw-fused concerns PyTorch alone")
    parser.add_argument("--level", help="instruction set of training-speed: scalar, avx2, avx512, neon")
    parser.add_argument("--alone", action="store_true", help="keep one side in memory at a time")
    parser.add_argument("--json", help="write all rounds here")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


# MARK: - Batches


def example(options, vocabulary, draw):
    """Lengths as span corruption makes them; tokens are random, since they do not change the work."""
    length = (options.least + options.most) // 2 if options.even else draw.randint(options.least, options.most)
    noise = max(1, round(length * (0.15 if options.even else draw.uniform(0.10, 0.22))))
    spans = max(1, round(noise / (3.0 if options.even else draw.choice([1.5, 3.0]))))
    tokens = lambda count: [draw.randrange(3, vocabulary) for _ in range(count)]
    return [tokens(length - noise + spans + 1), tokens(noise + spans + 2)]


def make_batches(options, vocabulary):
    draw = random.Random(1)
    batches = []
    for _ in range(options.steps):
        batch = []
        if options.target_tokens is None:
            batch = [example(options, vocabulary, draw) for _ in range(options.batch)]
        else:
            # Exactly as many target tokens: the last target is cut.
            left = options.target_tokens
            while left > 0:
                source, target = example(options, vocabulary, draw)
                batch.append([source, target[:left]])
                left -= len(batch[-1][1])
        batches.append(batch)
    return batches


# MARK: - PyTorch's side


def torch_worker(options):
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    import transformers
    from transformers import SwitchTransformersForConditionalGeneration

    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    with open(options.worker) as file:
        batches = json.load(file)
    model = SwitchTransformersForConditionalGeneration.from_pretrained(
        options.model, dtype=torch.float32, dropout_rate=0.0, router_jitter_noise=0.01)
    if getattr(model.config, "decoder_start_token_id", None) is None:
        model.config.decoder_start_token_id = 0
    routed = []
    for name, module in model.named_modules():
        if name.endswith("mlp.router"):
            module.expert_capacity = 100_000
            module.register_forward_hook(lambda module, inputs, outputs: routed.append((outputs[0], outputs[2])))
    model.train()
    if options.optimizer == "adafactor":
        from transformers.optimization import Adafactor
        optimizer = Adafactor(model.parameters(), lr=1e-4, relative_step=False, scale_parameter=True, warmup_init=False)
    elif options.optimizer != "none":
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-4, weight_decay=0.0, fused=True if options.optimizer == "adamw-fused" else None)
    times = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0}

    def tensors(pairs):
        longest = [max(len(pair[i]) for pair in pairs) for i in (0, 1)]
        ids = torch.zeros(len(pairs), longest[0], dtype=torch.long)
        labels = torch.full((len(pairs), longest[1]), -100)
        for row, (source, target) in enumerate(pairs):
            ids[row, :len(source)] = torch.tensor(source)
            labels[row, :len(target)] = torch.tensor(target)
        return ids, labels

    def step(ids, labels):
        start = time.perf_counter()
        routed.clear()
        output = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels)
        balance = 0.0
        for mask, logits in routed:
            share = mask.float().reshape(-1, mask.shape[-1]).mean(0)
            balance = balance + mask.shape[-1] * (share * logits.softmax(-1).reshape(-1, mask.shape[-1]).mean(0)).sum()
        loss = output.loss + 0.01 * balance
        times["forward"] += time.perf_counter() - start
        start = time.perf_counter()
        model.zero_grad(set_to_none=True)
        loss.backward()
        times["backward"] += time.perf_counter() - start
        start = time.perf_counter()
        if options.optimizer != "none":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        times["optimizer"] += time.perf_counter() - start
        return output.loss.item()

    ready = [tensors(pairs) for pairs in batches]
    padded = sum(ids.numel() + labels.numel() for ids, labels in ready)
    first = step(*ready[0])
    say({"ready": True, "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
         "kernels": f"MKL {'yes' if torch.backends.mkl.is_available() else 'no'}, {torch.backends.cpu.get_cpu_capability()}",
         "threads": torch.get_num_threads(), "loss": first, "paddedTokens": padded})
    for _ in sys.stdin:
        for name in times:
            times[name] = 0.0
        start = time.perf_counter()
        loss = sum(step(ids, labels) for ids, labels in ready) / len(ready)
        say({"seconds": time.perf_counter() - start, "loss": loss, "phases": times,
             "peakBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})


def say(message):
    print(json.dumps(message), flush=True)


# MARK: - In turn


class Side:
    """One program: a line on its input is one round."""

    def __init__(self, name, command):
        self.name, self.command, self.process, self.hello, self.rounds = name, command, None, {}, []

    def start(self):
        if self.process is None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.hello = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self.process.wait()}")
        return json.loads(line)

    def run(self):
        self.start()
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def stop(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process = None


def spread(values, digits):
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} ... {max(values):,.{digits}f})"


def main():
    options = arguments()
    if options.worker:
        torch_worker(options)
        return
    with open(os.path.join(options.model, "config.json")) as file:
        vocabulary = json.load(file)["vocab_size"]
    batches = make_batches(options, vocabulary)
    folder = tempfile.TemporaryDirectory()
    path = os.path.join(folder.name, "batches.json")
    with open(path, "w") as file:
        json.dump(batches, file)
    ours = [options.program, options.model, path, "--threads", str(options.threads),
            "--optimizer", options.optimizer.removesuffix("-fused")]
    if options.level:
        ours += ["--level", options.level]
    sides = [Side("torch", [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--worker", path]),
             Side("ours", ours)]
    tokens = [sum(len(pair[i]) for pairs in batches for pair in pairs) for i in (0, 1)]
    loads = []
    for number in range(options.rounds):
        loads.append(os.getloadavg()[0])
        for side in sides if number % 2 == 0 else sides[::-1]:
            result = side.run()
            side.rounds.append(result)
            print(f"round {number + 1} {side.name}: {result['seconds'] / options.steps * 1000:.1f} ms a step, loss"
                  f" {result['loss']:.4f}", file=sys.stderr, flush=True)
            if options.alone:
                side.stop()
    for side in sides:
        side.stop()
    folder.cleanup()
    report(options, sides, tokens, loads)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"tokens": tokens, "loads": loads,
                       "sides": [{"name": s.name, "hello": s.hello, "rounds": s.rounds} for s in sides]}, file)


def report(options, sides, tokens, loads):
    torch_side, our_side = sides
    total = sum(tokens)
    print(f"{torch_side.hello['versions']} ({torch_side.hello['kernels']}, {torch_side.hello['threads']} threads); ours:"
          f" {our_side.hello['kernels']}, {our_side.hello['threads']} threads. {options.steps} steps a round,"
          f" {options.rounds} rounds; a step has {tokens[0] / options.steps:,.0f} tokens of inputs and"
          f" {tokens[1] / options.steps:,.0f} of targets, with padding"
          f" {torch_side.hello['paddedTokens'] / options.steps:,.0f}. Optimizer: {options.optimizer}. Load average"
          f" before the rounds: {min(loads):.1f} ... {max(loads):.1f}.\n")
    print("| | tokens/s | ms a step | peak memory, GB | ms forward, backward, optimizer |")
    print("|---|---|---|---|---|")
    for side in sides:
        milliseconds = [run["seconds"] / options.steps * 1000 for run in side.rounds]
        phases = ", ".join(
            f"{statistics.median(run['phases'][name] for run in side.rounds) / options.steps * 1000:,.1f}"
            for name in ("forward", "backward", "optimizer"))
        peak = max(run["peakBytes"] for run in side.rounds)
        print(f"| {side.name} | {spread([total / run['seconds'] for run in side.rounds], 0)} |"
              f" {spread(milliseconds, 1)} | {peak / 1e9:.2f} | {phases} |")
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(torch_side.rounds, our_side.rounds)]
    peaks = [max(run["peakBytes"] for run in side.rounds) for side in (our_side, torch_side)]
    print(f"| ours over torch's | {spread(ratios, 2)} | | {peaks[0] / peaks[1]:.2f} | |")
    extra = our_side.rounds[-1]["phases"]
    print("\nOurs by phase, ms a step: " + ", ".join(
        f"{name} {statistics.median(run['phases'][name] for run in our_side.rounds) / options.steps * 1000:,.1f}"
        for name in extra) + f"; activations {our_side.rounds[-1]['activationBytes'] / 1e6:,.1f} MB.")


if __name__ == "__main__":
    main()
