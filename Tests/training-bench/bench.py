# SPDX-License-Identifier: Apache-2.0
"""Trains small models with Switchyard and with PyTorch, in turn, and prints how good they become.

    python bench.py scenes|words|balance|serve|all [--switchyard PROGRAM] [--folder DIR] [--steps N]

`scenes` and `words` train from scratch with several seeds each, on the same files; `balance` trains with and without the load
balancing loss; `serve` asks a cluster with the trained model of `words` for 1,000 held-out words. Runs that are in the folder
are not repeated: remove it to begin anew.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time

import examples

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MINIATURE = os.path.join(ROOT, "deploy", "models", "switch-mini")
SIZES = {"scenes": {"steps": 600, "batch": 48}, "words": {"steps": 1000, "batch": 64}}
# Held-out words that each model answers, and that the cluster is asked.
ANSWERS = 1000
REPORT_EVERY, LEARNING_RATE = 10, 0.01
TORCH, OURS = "PyTorch", "Switchyard"


def say(text):
    print(text, file=sys.stderr, flush=True)


class Piece:
    """One kind of data, its size, and where its runs lie."""

    def __init__(self, name, options):
        self.name = name
        self.steps = options.steps or SIZES[name]["steps"]
        self.batch = options.batch or SIZES[name]["batch"]
        self.warm_up = min(100, self.steps // 5)
        self.program, self.build, self.threads = options.switchyard, options.folder, str(options.threads)
        self.data = os.path.join(options.folder, name, "data")

    def prepare(self):
        """Makes the data unless it is there; the folder gets its name when it is whole."""
        if self.name == "scenes":
            self.data += f"-{self.steps * self.batch}"
        if os.path.exists(self.data):
            return
        part = f"{self.data}.{os.getpid()}"
        say(f"{self.name}: making the data")
        if self.name == "scenes":
            examples.make_scenes(part, MINIATURE, self.steps * self.batch)
        else:
            examples.make_words(part, self.build)
        os.rename(part, self.data)

    def folder(self, system, seed, balance):
        name = f"{system.lower()}-{self.steps}x{self.batch}-balance-{balance:g}-seed-{seed}"
        return os.path.join(self.build, self.name, name)

    def command(self, system, seed, balance):
        """What trains a model: the same settings for both systems, as far as a system does not have them built in."""
        out, data = self.folder(system, seed, balance), self.data
        settings = {"steps": self.steps, "seed": seed, "learning-rate": LEARNING_RATE, "warm-up": self.warm_up,
                    "balance": balance, "threads": self.threads, "report-every": REPORT_EVERY}
        if system == TORCH:
            command = [sys.executable, os.path.join(HERE, "torch_recipe.py"), data, out]
            settings |= {"batch": self.batch}
        else:
            command = [self.program, "train", "--new", os.path.join(data, "config.json"), "--tokenizer", data,
                       "--scale-by-weights"]
            settings |= {
                "out": out, "data": os.path.join(data, "train.jsonl"), "eval": os.path.join(data, "heldout.jsonl"),
                "eval-examples": 100_000, "initialisation": "transformers", "batch-examples": self.batch, "optimizer": "adamw",
                "beta1": 0.9, "beta2": 0.99, "weight-decay": 0, "schedule": "cosine", "clip": 1, "dropout": 0,
                "expert-dropout": 0, "jitter": 0.01, "train-capacity": "unlimited", "eval-capacity": "unlimited",
                "eval-every": self.steps, "save-every": self.steps, "keep": 1}
        return command + [part for name, value in settings.items() for part in (f"--{name}", str(value))]

    def run(self, system, seed, balance=0.01):
        """Trains, and measures what came of it with transformers; a run that is there is only read."""
        out = self.folder(system, seed, balance)
        result = os.path.join(out, "result.json")
        if not os.path.exists(result):
            say(f"{self.name}: {system}, seed {seed}, balance {balance:g}, {self.steps} steps")
            shutil.rmtree(out, ignore_errors=True)
            os.makedirs(os.path.dirname(out), exist_ok=True)
            load, before = os.getloadavg()[0], resource.getrusage(resource.RUSAGE_CHILDREN)
            with open(out + ".log", "w") as log:
                code = subprocess.run(self.command(system, seed, balance), stdout=log, stderr=subprocess.STDOUT).returncode
            if code != 0:
                raise SystemExit(f"{system} ended with {code}; see {out}.log")
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            found = self.summary(out, cpu) | self.measure(out) | {
                "load": [load, os.getloadavg()[0]], "threads": self.threads}
            with open(result, "w") as file:
                json.dump(found, file, indent=1)
        with open(result) as file:
            return json.load(file)

    def summary(self, out, cpu):
        """Loss of the last tenth of the run, and what it took: of PyTorch its loop alone, without the evaluation of step 0."""
        lines = read_metrics(out, "training")
        start = [line["seconds"] for line in read_metrics(out, "evaluation") if line["step"] == 0]
        last = [line["crossEntropy"] for line in lines if line["step"] > 0.9 * self.steps]
        return {"training": statistics.fmean(last), "seconds": lines[-1]["seconds"] - sum(start),
                "cpu": lines[-1].get("cpuSeconds", cpu)}

    def measure(self, out):
        command = [sys.executable, os.path.join(HERE, "measure.py"), os.path.join(out, "latest"),
                   os.path.join(self.data, "heldout.jsonl"), "--threads", self.threads]
        if self.name == "words":
            command += ["--answers", str(ANSWERS), "--ids", os.path.join(out, "ids.json")]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])


def read_metrics(out, kind):
    with open(os.path.join(out, "metrics.jsonl")) as file:
        return [line for line in map(json.loads, file) if line["kind"] == kind]


def spread(values, form):
    if len(values) == 1:
        return form.format(values[0])
    return f"{form.format(statistics.fmean(values))} ({form.format(min(values))} to {form.format(max(values))})"


def verdict(reference, values):
    """Whether every value lies within the reference's spread, or where not, on which side."""
    if all(value <= max(reference) for value in values):
        return "within" if all(value >= min(reference) for value in values) else "within or below"
    return f"above by {100 * (max(values) / max(reference) - 1):.1f} %"


MEASURES = {
    "loss": ("held-out loss, nats", "{:.4f}"),
    "training": ("training loss, last tenth", "{:.4f}"),
    "phonemes": ("phoneme error rate", "{:.4f}"),
    "words": ("word error rate", "{:.4f}"),
    "seconds": ("seconds of training", "{:.0f}"),
    "cpu": ("processor seconds", "{:.0f}"),
}


def compare(piece, options):
    """Trains all seeds, one system after the other, and prints the table."""
    piece.prepare()
    found = {TORCH: [], OURS: []}
    for number in range(max(options.torch_seeds, options.seeds)):
        for system, seeds in [(TORCH, options.torch_seeds), (OURS, options.seeds)]:
            if number < seeds and system in options.system:
                found[system].append(piece.run(system, number + 1))
    if not all(found.values()):
        return
    load = [value for runs in found.values() for run in runs for value in run["load"]]
    threads = " and ".join(sorted({f"{run['threads']} ({system})" for system, runs in found.items() for run in runs}))
    print(f"\n### {piece.name}: {piece.steps} steps of {piece.batch} examples\n\n{machine()}; threads: {threads}; load"
          f" {min(load):.1f} to {max(load):.1f}.\n")
    print(f"| | {TORCH}, {len(found[TORCH])} seeds | {OURS}, {len(found[OURS])} seeds | {OURS} in {TORCH}'s spread |")
    print("|---|---:|---:|---|")
    for key, (name, form) in MEASURES.items():
        torch, ours = ([run[key] for run in found[system] if key in run] for system in (TORCH, OURS))
        if torch:
            print(f"| {name} | {spread(torch, form)} | {spread(ours, form)} | {verdict(torch, ours)} |")
    check_evaluation(piece, found[OURS][0])


def check_evaluation(piece, result):
    """Switchyard's own loss of its first model on the held-out file, beside transformers'."""
    own = read_metrics(piece.folder(OURS, 1, 0.01), "evaluation")
    if own:
        print(f"\nHeld-out loss of seed 1 as Switchyard measures it: {own[-1]['crossEntropy']:.6f}, as transformers"
              f" measures it: {result['loss']:.6f}.")


def balance(piece, options):
    """The same run with the load balancing loss and without it: the most used expert of each layer, step by step."""
    piece.prepare()
    runs = []
    for factor in (0.01, 0.0):
        piece.run(OURS, 1, factor)
        layers = {}
        for line in read_metrics(piece.folder(OURS, 1, factor), "training"):
            for layer in line["layers"]:
                peak = max(layer["shares"]) * len(layer["shares"])
                layers.setdefault(layer["layer"], []).append([line["step"], round(peak, 3)])
        runs.append({"balance": factor, "layers": [{"layer": name, "peaks": peaks} for name, peaks in layers.items()]})
    path = os.path.join(options.folder, "balance.json")
    with open(path, "w") as file:
        json.dump({"steps": piece.steps, "warmUp": piece.warm_up, "runs": runs}, file, separators=(",", ":"))
        file.write("\n")
    print(f"\n### Most used expert after the warm-up, as a multiple of an even share\n\nMeans of {REPORT_EVERY} steps; written"
          f" to {path}.\n\n| layer | with the loss (0.01): mean, most | without it: mean, most |\n|---|---:|---:|")
    for with_loss, without in zip(runs[0]["layers"], runs[1]["layers"]):
        cells = []
        for layer in (with_loss, without):
            peaks = [peak for step, peak in layer["peaks"] if step > piece.warm_up]
            cells.append(f"{statistics.fmean(peaks):.2f}, {max(peaks):.2f}")
        print(f"| {with_loss['layer']} | {cells[0]} | {cells[1]} |")


def ask_cluster(program, model, words, port, pools, log):
    """Serves a model on a gateway with expert hosts, or with none for a dense model, and asks for words with 16 callers.

    Gives the answers' token ids and the seconds that they took.
    """
    import grpc
    from concurrent.futures import ThreadPoolExecutor

    sys.path.insert(0, os.path.join(ROOT, "Tests", "Peers"))
    import peer_protos

    peer_protos.compile_protos(peer_protos.PROTOS, peer_protos.GATEWAY)
    from switchyard.v1 import gateway_pb2, gateway_pb2_grpc

    address = f"127.0.0.1:{port}"
    hosts = ["--pools", str(pools)] if pools else []
    with open(log, "w") as file:
        cluster = subprocess.Popen([program, "up", model, *hosts, "--listen", address], stdout=file, stderr=subprocess.STDOUT)
    try:
        with grpc.insecure_channel(address) as channel, ThreadPoolExecutor(16) as callers:
            stub = gateway_pb2_grpc.GatewayStub(channel)

            def ask(word):
                request = gateway_pb2.GenerateRequest(text=word)
                request.parameters.max_new_tokens = 40
                return list(stub.Generate(request, timeout=120, wait_for_ready=True).generations[0].token_ids)

            ask(words[0])
            start = time.monotonic()
            found = list(callers.map(ask, words))
            return found, time.monotonic() - start
    finally:
        cluster.terminate()
        cluster.wait(60)


def read_column(path):
    """The inputs of a TSV file."""
    with open(path, encoding="utf-8") as file:
        return [line.split("\t")[0] for line in file]


def ids_of_transformers(model, data, threads, path):
    """The token ids of transformers' greedy answers to the first inputs of a file; they are kept at the path."""
    command = [sys.executable, os.path.join(HERE, "measure.py"), model, data, "--threads", str(threads), "--answers", str(ANSWERS),
               "--ids", path]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    with open(path) as file:
        return json.load(file)


def serve(piece, options):
    """Asks a cluster of one gateway and two expert hosts for held-out words, and compares ids with transformers'."""
    piece.prepare()
    piece.run(OURS, 1)
    out = piece.folder(OURS, 1, 0.01)
    with open(os.path.join(out, "ids.json")) as file:
        expected = json.load(file)
    with open(os.path.join(piece.data, "heldout.jsonl"), encoding="utf-8") as file:
        words = [json.loads(line)["input"] for line in file][:ANSWERS]
    found, seconds = ask_cluster(piece.program, os.path.join(out, "latest"), words, options.port, 2, out + "-cluster.log")
    same = sum(one == other for one, other in zip(found, expected))
    print(f"\n### The trained model in a cluster\n\nOne gateway, two expert hosts, 16 callers: {len(words)} held-out words in"
          f" {seconds:.1f} s, {same} answers with the ids of transformers.")
    for word, one, other in zip(words, found, expected):
        if one != other:
            print(f"- {word}: {one}, transformers {other}")


def machine():
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} processors ({names[0] if names else platform.machine()})"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("piece", choices=["scenes", "words", "balance", "serve", "all"])
    parser.add_argument("--switchyard", default=os.path.join(ROOT, ".build", "release", "switchyard"))
    parser.add_argument("--folder", default=os.path.join(ROOT, ".build", "bench", "training"))
    parser.add_argument("--steps", type=int, help="steps of each run (600 of scenes and balance, 1000 of words)")
    parser.add_argument("--batch", type=int, help="examples of a batch (48 of scenes and balance, 64 of words)")
    parser.add_argument("--torch-seeds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--system", action="append", choices=[TORCH, OURS], help="train with this system alone; no table")
    parser.add_argument("--threads", type=int, default=2, help="compute threads of each system")
    parser.add_argument("--port", type=int, default=7479)
    options = parser.parse_args()
    options.system = options.system or [TORCH, OURS]
    options.folder = os.path.abspath(options.folder)
    work = {"scenes": (compare, "scenes"), "words": (compare, "words"), "balance": (balance, "scenes"),
            "serve": (serve, "words")}
    for name in work if options.piece == "all" else [options.piece]:
        function, data = work[name]
        function(Piece(data, options), options)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
