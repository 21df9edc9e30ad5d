# SPDX-License-Identifier: Apache-2.0
"""Measures a checkpoint with transformers, whichever system trained it, and prints JSON.

    python measure.py CHECKPOINT FILE [--answers N] [--ids FILE] [--threads N]

The loss is the mean of -log p over all expected tokens of FILE. With --answers the model answers the first N inputs greedily:
phoneme error rate (edits over expected phonemes) and word error rate (the share of words with any error). --ids writes each
answer's token ids.
"""

import argparse
import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import AutoModelForSeq2SeqLM, T5Tokenizer

MOST_NEW_TOKENS = 40


def read_lines(path):
    """Examples of JSON lines, or of a file of two columns."""
    with open(path, encoding="utf-8") as file:
        if path.endswith(".tsv"):
            return [dict(zip(("input", "target"), line.rstrip("\n").split("\t"))) for line in file]
        return [json.loads(line) for line in file]


def read_examples(tokenizer, path):
    """Pairs of token ids, each with `</s>`."""
    tokenizer = T5Tokenizer.from_pretrained(tokenizer)
    lines = read_lines(path)
    inputs = tokenizer([line["input"] for line in lines]).input_ids
    return list(zip(inputs, tokenizer([line["target"] for line in lines]).input_ids))


def tensors(pairs):
    """Padded input ids, their mask, and labels with -100 for padding."""
    longest = [max(len(pair[side]) for pair in pairs) for side in (0, 1)]
    ids = torch.zeros(len(pairs), longest[0], dtype=torch.long)
    mask = torch.zeros(len(pairs), longest[0], dtype=torch.long)
    labels = torch.full((len(pairs), longest[1]), -100)
    for row, (source, target) in enumerate(pairs):
        ids[row, :len(source)] = torch.tensor(source)
        mask[row, :len(source)] = 1
        labels[row, :len(target)] = torch.tensor(target)
    return ids, mask, labels


@torch.no_grad()
def mean_loss(model, examples, size=64):
    total, tokens = 0.0, 0
    for start in range(0, len(examples), size):
        ids, mask, labels = tensors(examples[start:start + size])
        count = int((labels >= 0).sum())
        total += count * model(input_ids=ids, attention_mask=mask, labels=labels).loss.item()
        tokens += count
    return total / tokens, tokens


@torch.no_grad()
def answers(model, inputs, size=256):
    """Greedy answers as token ids up to and with `</s>`; inputs of one length at a time, so that nothing is padded."""
    found = [None] * len(inputs)
    by_length = {}
    for place, ids in enumerate(inputs):
        by_length.setdefault(len(ids), []).append(place)
    for places in by_length.values():
        for start in range(0, len(places), size):
            some = places[start:start + size]
            output = model.generate(
                input_ids=torch.tensor([inputs[place] for place in some]), max_new_tokens=MOST_NEW_TOKENS, do_sample=False,
                num_beams=1)
            for place, ids in zip(some, output[:, 1:].tolist()):
                found[place] = ids[:ids.index(1) + 1] if 1 in ids else ids
    return found


def edits(expected, found):
    row = list(range(len(found) + 1))
    for i, one in enumerate(expected, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(found, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (one != other))
    return row[-1]


def error_rates(expected, found):
    """Phoneme and word error rates of texts."""
    pairs = [(one.split(), other.split()) for one, other in zip(expected, found)]
    phonemes = sum(edits(*pair) for pair in pairs) / sum(len(one) for one, _ in pairs)
    return phonemes, sum(one != other for one, other in pairs) / len(pairs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("file")
    parser.add_argument("--answers", type=int, default=0)
    parser.add_argument("--ids")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, loading = AutoModelForSeq2SeqLM.from_pretrained(
        options.checkpoint, dtype=torch.float32, output_loading_info=True)
    problems = {kind: sorted(names) for kind, names in loading.items() if names}
    assert not problems, f"{options.checkpoint} is not what transformers expects: {problems}"
    model.eval()
    examples = read_examples(options.checkpoint, options.file)
    loss, tokens = mean_loss(model, examples)
    result = {"loss": loss, "tokens": tokens}
    if options.answers:
        ids = answers(model, [source for source, _ in examples[:options.answers]])
        tokenizer = T5Tokenizer.from_pretrained(options.checkpoint)
        texts = [tokenizer.decode(one, skip_special_tokens=True) for one in ids]
        expected = [line["target"] for line in read_lines(options.file)[:options.answers]]
        result["phonemes"], result["words"] = error_rates(expected, texts)
        if options.ids:
            with open(options.ids, "w") as file:
                json.dump(ids, file)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
