# SPDX-License-Identifier: Apache-2.0
"""lm-evaluation-harness, unmodified, against a gateway: the task of docs/http.md over a file of questions.

    lm_eval_client.py HTTP_BASE_URL MODEL QUESTIONS.jsonl DELIMITER [TOKENIZER_FOLDER]

Prints one JSON object: for each question the log-probability of each answer and whether it is the greedy one. Nothing is
downloaded. Without a folder the harness finds the server's own tokenizer.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

base, model, questions, delimiter = sys.argv[1:5]
tokenizer = sys.argv[5] if len(sys.argv) > 5 else None
document = pathlib.Path(__file__).parents[2] / "docs/http.md"
# The document's own example, so that it stays true.
task = re.search(r"```yaml\n(task: scenes\n.*?)```", document.read_text(), re.S).group(1)
task = re.sub(r'^target_delimiter: .*$', lambda _: f"target_delimiter: {json.dumps(delimiter)}", task, flags=re.M)

with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    (folder / "scenes.yaml").write_text(task)
    shutil.copy(questions, folder / "scenes.jsonl")
    arguments = f"model={model},base_url={base}/v1/completions,max_length=512,num_concurrent=4"
    if tokenizer:
        arguments += f",tokenizer_backend=huggingface,tokenizer={tokenizer}"
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", arguments, "--tasks", "scenes",
        "--include_path", ".", "--output_path", "out", "--log_samples",
    ]  # fmt: skip
    offline = {"HF_HOME": f"{folder}/cache", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    run = subprocess.run(command, cwd=folder, env=os.environ | offline, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"lm_eval ended with {run.returncode}:\n{run.stdout}\n{run.stderr}")
    samples = [json.loads(line) for file in folder.glob("out/**/samples_*.jsonl") for line in file.read_text().splitlines()]
    samples.sort(key=lambda sample: sample["doc_id"])
    results = [json.loads(file.read_text()) for file in folder.glob("out/**/results_*.json")][0]["results"]["scenes"]

report = {"logprobs": [], "greedy": [], "accuracy": results["acc,none"]}
for sample in samples:
    answers = [answer[0] for answer in sample["resps"]]
    report["logprobs"].append([float(logprob) for logprob, _ in answers])
    report["greedy"].append([str(greedy) == "True" for _, greedy in answers])
print(json.dumps(report))
