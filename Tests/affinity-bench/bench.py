#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures what expert affinity saves: several gateways share the replicas of one pool on this machine.

Each round starts hosts and gateways anew under one rule, lets every gateway answer the same file of lines, and reads the
hosts' counters. Rounds alternate between the rules. Prints a table as Markdown.

    bench.py SWITCHYARD MODEL [--gateways 4] [--replicas 2] [--slots 8] [--rounds 3] [--lines 48] [--tokens 48] [--widen 0]
             [--window 1000]

With --widen the feed-forward layers of MODEL, which is one file in bfloat16, are padded with zeros to this width: the answers
stay the same, and hosts read as much as those of a larger model. --window is the hosts' batch-window-us.
"""

import argparse
import json
import pathlib
import re
import statistics
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

RULES = ["affinity", "two-choices"]
PORT = 17400


def widened(model, width, folder):
    """Writes the model with wider feed-forward layers, whose further weights are zero."""
    folder.mkdir()
    for path in model.iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            shutil.copy(path, folder)
    configuration = json.loads((model / "config.json").read_text())
    configuration["d_ff"] = width
    (folder / "config.json").write_text(json.dumps(configuration))
    data = (model / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    tensors, parts, end = {}, [], 0
    for name, entry in header.items():
        if name == "__metadata__":
            tensors[name] = entry
            continue
        start, stop = entry["data_offsets"]
        content, shape = data[8 + size + start:8 + size + stop], entry["shape"]
        if name.endswith(".wi.weight"):
            content += bytes(2 * (width - shape[0]) * shape[1])
            shape = [width, shape[1]]
        elif name.endswith(".wo.weight"):
            row, padding = 2 * shape[1], bytes(2 * (width - shape[1]))
            content = b"".join(content[at:at + row] + padding for at in range(0, len(content), row))
            shape = [shape[0], width]
        tensors[name] = {"dtype": entry["dtype"], "shape": shape, "data_offsets": [end, end + len(content)]}
        end += len(content)
        parts.append(content)
    text = json.dumps(tensors).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(parts)
    return folder


def metrics(port):
    """A process's metrics: name with labels to value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def total(all_metrics, name):
    """The sum of a metric's series over processes."""
    return sum(value for one in all_metrics for key, value in one.items() if key.split("{")[0] == name)


def percentile(all_metrics, name, fraction):
    """A percentile of a histogram over processes: linear within its bucket, in seconds."""
    buckets = {}
    for one in all_metrics:
        for key, value in one.items():
            found = re.fullmatch(re.escape(name) + r'_bucket\{.*le="([^"]+)".*\}', key)
            if found:
                bound = float(found.group(1).replace("+Inf", "inf"))
                buckets[bound] = buckets.get(bound, 0) + value
    wanted = fraction * max(buckets.values())
    low, below = 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= wanted:
            return low if bound == float("inf") else low + (bound - low) * (wanted - below) / max(1, count - below)
        low, below = bound, count
    return low


def wait_until_ready(port, process):
    """Waits until a process says that it is ready."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit(f"a process ended with status {process.returncode}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2)
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("a process did not get ready in two minutes")


def round_of(rule, options, folder):
    """Runs one round, and returns its figures."""
    program, processes = options.switchyard, []

    def start(*arguments):
        log = open(folder / f"log-{len(processes)}", "w")
        processes.append(subprocess.Popen([program, *arguments], stdout=log, stderr=log))
        return processes[-1]

    try:
        hosts = [PORT + 10 * index for index in range(options.replicas)]
        for port in hosts:
            start(
                "expert-host", "--shard", str(folder / "shards" / "pool-0"), "--listen", f"127.0.0.1:{port}",
                "--admin-listen", f"127.0.0.1:{port + 1}", "--threads", str(options.threads),
                "--batch-window-us", str(options.window),
            )
        for index, port in enumerate(hosts):
            wait_until_ready(port + 1, processes[index])
        targets = ",".join(f"127.0.0.1:{port}" for port in hosts)
        gateways = [PORT + 1000 + 10 * index for index in range(options.gateways)]
        for port in gateways:
            start(
                "gateway", "--model", str(folder / "shards" / "gateway"), "--pool", f"pool-0={targets}",
                "--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{port + 1}",
                "--threads", str(options.threads), "--batch-slots", str(options.slots), "--replica-choice", rule,
                "--audit-percent", "0", "--encoder-deadline-ms", "60000", "--decoder-deadline-ms", "60000",
            )
        for index, port in enumerate(gateways):
            wait_until_ready(port + 1, processes[len(hosts) + index])
        begun = time.monotonic()
        clients = [
            subprocess.Popen(
                [
                    program, "batch", str(folder / "lines.jsonl"), str(folder / f"answers-{rule}-{index}.jsonl"),
                    "--endpoint", f"127.0.0.1:{port}", "--overwrite",
                ],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for index, port in enumerate(gateways)
        ]
        if any(client.wait() for client in clients):
            sys.exit(f"a client failed; see {folder}")
        taken = time.monotonic() - begun
        host_metrics = [metrics(port + 1) for port in hosts]
        gateway_metrics = [metrics(port + 1) for port in gateways]
        rows = total(host_metrics, "switchyard_host_rows_total")
        tokens = options.gateways * options.lines * options.tokens
        return {
            "reads": total(host_metrics, "switchyard_host_expert_reads_total") / rows,
            "calls": total(host_metrics, "switchyard_host_calls_total") / rows,
            "passes": total(host_metrics, "switchyard_host_passes_total") / rows,
            "p50": 1000 * percentile(gateway_metrics, "switchyard_decode_seconds", 0.5),
            "p99": 1000 * percentile(gateway_metrics, "switchyard_decode_seconds", 0.99),
            "tokens": tokens / taken,
        }
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def main():
    """Runs the rounds, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("switchyard")
    parser.add_argument("model")
    for name, value in [
        ("gateways", 4), ("replicas", 2), ("slots", 8), ("rounds", 3), ("lines", 48), ("tokens", 48), ("threads", 1),
        ("widen", 0), ("window", 1000),
    ]:
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="affinity-") as name:
        folder = pathlib.Path(name)
        model = pathlib.Path(options.model)
        if options.widen:
            model = widened(model, options.widen, folder / "model")
        subprocess.run(
            [options.switchyard, "shard", str(model), "--out", str(folder / "shards"), "--pools", "1"],
            check=True, stdout=subprocess.DEVNULL,
        )
        words = "the king of night had a crown and no horse under a cold moon that she would not name".split()
        with open(folder / "lines.jsonl", "w") as lines:
            for line in range(options.lines):
                text = " ".join(words[(line * 7 + word * (1 + line % 5)) % len(words)] for word in range(12))
                parameters = {"minNewTokens": options.tokens, "maxNewTokens": options.tokens}
                lines.write(json.dumps({"text": f"{text} <extra_id_0> .", "parameters": parameters}) + "\n")
        results = {rule: [] for rule in RULES}
        for number in range(options.rounds):
            for rule in RULES if number % 2 == 0 else RULES[::-1]:
                results[rule].append(round_of(rule, options, folder))
        same = {
            (folder / f"answers-{rule}-{index}.jsonl").read_bytes()
            for rule in RULES for index in range(options.gateways)
        }
        if len(same) != 1:
            sys.exit("the answers differ")
    print("| replica-choice | expert reads a row | calls per row | passes a row | decode p50 | p99 | tokens/s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for rule in RULES:
        cells = [rule]
        for key, form in [
            ("reads", "{:.3f}"), ("calls", "{:.3f}"), ("passes", "{:.3f}"), ("p50", "{:.2f} ms"), ("p99", "{:.2f} ms"),
            ("tokens", "{:.0f}"),
        ]:
            values = [one[key] for one in results[rule]]
            cells.append(
                f"{form.format(statistics.median(values))} ({form.format(min(values))} to {form.format(max(values))})"
            )
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
