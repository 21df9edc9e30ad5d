# SPDX-License-Identifier: Apache-2.0
"""The measured side of `switchyard-bench compare`, for the bench_*.py scripts.

Lines of JSON: first {"ready": true, "versions": "...", "cases": [{"work": "decode", "size": 1}, ...]}; then, for each line
with a case on standard input, one run's {"value": 42.6, "unit": "tokens/s"} or {"error": "..."}, until the input ends. A
peer that cannot run here prints {"skipped": "why"} and exits.
"""

import json
import statistics
import sys


def say(message: dict) -> None:
    print(json.dumps(message), flush=True)


def skip(reason: str) -> None:
    """Says that the peer cannot run here, which is not an error, and exits."""
    say({"skipped": reason})
    raise SystemExit(0)


def serve(versions: str, cases: list, measure) -> None:
    """Measures the requested cases; `measure(work, size)` returns a message with a value and a unit."""
    say({"ready": True, "versions": versions, "cases": [{"work": work, "size": size} for work, size in cases]})
    for line in sys.stdin:
        case = json.loads(line)
        try:
            say(measure(case["work"], case["size"]))
        except Exception as error:  # noqa: BLE001: report any failure to the other side
            say({"error": f"{type(error).__name__}: {error}"})


def run_alone(versions: str, cases: list, measure, runs: int) -> None:
    """Measures every case several times without other systems, one line of JSON per case; the first run is discarded."""
    for work, size in cases:
        results = [measure(work, size) for _ in range(runs + 1)][1:]
        values = [result["value"] for result in results]
        say({
            "work": work, "size": size, "unit": results[0]["unit"], "median": round(statistics.median(values), 3),
            "lowest": round(min(values), 3), "highest": round(max(values), 3), "runs": runs, "versions": versions,
        })
