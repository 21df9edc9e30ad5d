#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes generation-rules.json: what transformers' generate() makes of every generation parameter and of combinations.

Needs transformers 5.23.0 and torch 2.13.0 (CPU). Run it from anywhere:

    python Tests/SwitchModelTests/Fixtures/make_generation_rule_fixtures.py

The model is that of make_generation_fixtures.py. The file holds

- searches: greedy and beam searches, their ids and scores, for each parameter alone and for 300 random combinations;
- distributions: the probabilities that the first token is drawn with, out of generate()'s own scores;
- draws: how often a beam search with sampling returned which sequence, and that sequence's score.
"""

import collections
import json
import math
import pathlib
import random
import warnings

import torch
from make_generation_fixtures import TableModel, require_versions, scores
from transformers import GenerationConfig, PretrainedConfig

ENCODER = [5, 6, 9, 5, 6, 12, 3, 1]


def settings_of(case):
    settings = dict(case["settings"])
    if "sequence_bias" in settings:
        settings["sequence_bias"] = [[entry["tokens"], entry["bias"]] for entry in settings["sequence_bias"]]
    if "length_decay" in settings:
        decay = settings.pop("length_decay")
        settings["exponential_decay_length_penalty"] = (decay["start"], decay["factor"])
    if "early_stopping" in settings:
        settings["early_stopping"] = {"heuristic": False, "always": True, "never": "never"}[settings["early_stopping"]]
    return settings


def generate(case, batch=1):
    settings = settings_of(case)
    steps = settings["max_new_tokens"] + len(case["prefix"])
    table = scores(case["table"], steps, case["vocabulary"], case["end_bias"], 0)
    config = PretrainedConfig(is_encoder_decoder=True, decoder_start_token_id=case["start"],
                              eos_token_id=case["ends"], pad_token_id=0, vocab_size=case["vocabulary"])
    config.num_hidden_layers = 1
    model = TableModel(config, table).eval()
    settings = GenerationConfig(**settings, use_cache=False, decoder_start_token_id=case["start"],
                                eos_token_id=case["ends"], pad_token_id=0, return_dict_in_generate=True,
                                output_scores=True)
    extra = {}
    if case["prefix"]:
        extra["decoder_input_ids"] = torch.tensor([[case["start"]] + case["prefix"]] * batch)
    inputs = [token for token in ENCODER if token < case["vocabulary"]]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output = model.generate(torch.tensor([inputs] * batch), generation_config=settings, **extra)
    return table, output


def sequence(case, output, index):
    ids = output.sequences[index].tolist()[1 + len(case["prefix"]):]
    if case["settings"].get("num_beams", 1) > 1:
        return ids[:int((output.beam_indices[index] >= 0).sum())]
    ends = [place for place, token in enumerate(ids) if token in case["ends"]]
    return ids[:ends[0] + 1] if ends else ids


def search(case):
    """Fills in the results; False where transformers refuses, or leaves them undefined: no finite choice, or a tie."""
    forced = case["settings"].get("forced_eos_token_id")
    if case["settings"].get("num_beams", 1) > 1 and isinstance(forced, list) and len(forced) > 1:
        return False  # Forced tokens all have score 0.
    try:
        table, output = generate(case)
    except ValueError:
        return False
    if any(not torch.isfinite(row).any(dim=-1).all() for row in output.scores):
        return False
    results = []
    for index in range(len(output.sequences)):
        ids = sequence(case, output, index)
        if case["settings"].get("num_beams", 1) > 1:
            score = output.sequences_scores[index].item()
        else:
            last, score = ([case["start"]] + case["prefix"])[-1], 0.0
            for step, token in enumerate(ids):
                row = torch.log_softmax(table[step + len(case["prefix"])][last].double(), dim=-1)
                score, last = score + row[token].item(), token
            score /= len(ids) ** case["settings"].get("length_penalty", 1.0)
        if not score > -1e8:
            return False
        results.append({"ids": ids, "score": float(f"{score:.9g}")})
    case["results"] = results
    return True


def base(table, generator, **settings):
    return {"table": table, "vocabulary": generator.choice([17, 24]), "start": 0,
            "prefix": generator.choice([[], [], [4, 7], [5, 6, 5]]), "ends": generator.choice([[1], [1, 8], [9, 1, 2]]),
            "end_bias": generator.choice([-2.0, 0.0, 2.0]),
            "settings": {"max_new_tokens": generator.choice([4, 8, 12]), **settings}}


def rules(generator, most):
    def tokens(count):
        return [generator.randrange(2, 17) for _ in range(count)]

    return {
        "no_repeat_ngram_size": generator.choice([1, 2, 3]),
        "encoder_no_repeat_ngram_size": generator.choice([1, 2, 3]),
        "bad_words_ids": [tokens(1), tokens(1), tokens(2), [5, 6], [1], tokens(3)],
        "suppress_tokens": tokens(3),
        "begin_suppress_tokens": tokens(3) + [1],
        "forced_bos_token_id": tokens(1)[0],
        "forced_eos_token_id": generator.choice([1, [1], [1, 8]]),
        "sequence_bias": [{"tokens": tokens(1), "bias": 2.5}, {"tokens": tokens(1), "bias": -3.0},
                          {"tokens": tokens(2), "bias": 4.0}, {"tokens": [0, 6], "bias": 1.5}],
        "length_decay": {"start": generator.randrange(0, 4), "factor": generator.choice([1.05, 1.5, 0.8])},
        "encoder_repetition_penalty": generator.choice([1.5, 0.7]),
        "repetition_penalty": generator.choice([1.3, 0.8, 2.0]),
        "min_new_tokens": generator.randrange(1, most + 1),
        "renormalize_logits": True,
    }


def beams(generator):
    width = generator.choice([2, 3, 4])
    return {"num_beams": width, "num_return_sequences": generator.randint(1, width),
            "length_penalty": generator.choice([1.0, 0.0, 2.0, -0.5]),
            "early_stopping": generator.choice(["heuristic", "always", "never"])}


def make_searches():
    generator = random.Random(11)
    cases, table = [], 20_000
    for name in rules(generator, 4):
        for options in ({}, {}, beams(generator), beams(generator)):
            while True:
                table += 1
                case = base(table, generator, **options)
                case["settings"][name] = rules(generator, case["settings"]["max_new_tokens"])[name]
                if search(case):
                    break
            cases.append(case)
    combinations = 0
    while combinations < 300:
        table += 1
        case = base(table, generator, **(beams(generator) if generator.random() < 0.6 else {}))
        chosen = rules(generator, case["settings"]["max_new_tokens"])
        case["settings"].update({name: chosen[name] for name in chosen if generator.random() < 0.3})
        if search(case):
            cases.append(case)
            combinations += 1
    return cases


def warpers(generator):
    return {"temperature": generator.choice([0.5, 1.7]), "top_k": generator.choice([0, 3, 12]),
            "top_p": generator.choice([0.0, 0.3, 0.9]), "min_p": generator.choice([0.0, 0.05, 0.3]),
            "typical_p": generator.choice([0.2, 0.6, 0.95]), "epsilon_cutoff": generator.choice([0.02, 0.2]),
            "eta_cutoff": generator.choice([0.02, 0.3])}


def make_distributions():
    generator = random.Random(12)
    names = [name for name in warpers(generator)] + [name for name in rules(generator, 4)]
    cases, number = [], 0
    while len(cases) < len(names) + 60:
        number += 1
        case = base(30_000 + number, generator, do_sample=True, top_k=0)
        case["settings"]["max_new_tokens"] = 4
        chosen = {**rules(generator, 4), **warpers(generator)}
        if len(cases) < len(names):
            case["settings"][names[len(cases)]] = chosen[names[len(cases)]]
        else:
            case["settings"].update({name: chosen[name] for name in chosen if generator.random() < 0.3})
        try:
            torch.manual_seed(1)
            _, output = generate(case)
        except (RuntimeError, ValueError):
            continue  # Nothing was left to draw, or transformers refuses.
        row = torch.softmax(output.scores[0][0].double(), dim=-1).tolist()
        if not all(math.isfinite(value) for value in row):
            continue
        case["probabilities"] = [float(f"{value:.8g}") for value in row]
        cases.append(case)
    return cases


def make_draws():
    generator = random.Random(13)
    cases = []
    for number, (width, options) in enumerate([
            (2, {}), (3, {"temperature": 0.6}), (2, {"top_k": 1}), (2, {"top_p": 0.5}),
            (2, {"typical_p": 0.3, "renormalize_logits": True}), (3, {"min_p": 0.2, "length_penalty": 0.0}),
            (2, {"epsilon_cutoff": 0.2}), (2, {"eta_cutoff": 0.4, "repetition_penalty": 1.5})]):
        case = {"table": 40_000 + number, "vocabulary": 12, "start": 0, "prefix": [], "ends": [1], "end_bias": 2.0,
                "settings": {"max_new_tokens": 2, "num_beams": width, "do_sample": True, "top_k": 0, **options}}
        torch.manual_seed(number)
        _, output = generate(case, batch=20_000)
        counts, values = collections.Counter(), {}
        for index in range(len(output.sequences)):
            ids = tuple(sequence(case, output, index))
            counts[ids] += 1
            values[ids] = output.sequences_scores[index].item()
        case["outcomes"] = [{"ids": list(ids), "count": count, "score": float(f"{values[ids]:.9g}")}
                            for ids, count in sorted(counts.items())]
        cases.append(case)
    return cases


if __name__ == "__main__":
    require_versions()
    content = {"searches": make_searches(), "distributions": make_distributions(), "draws": make_draws()}
    lines = ["{"]
    for name, cases in content.items():
        rows = ",\n".join("  " + json.dumps(case, separators=(",", ":")) for case in cases)
        lines.append(f' "{name}": [\n{rows}\n ]' + ("," if name != "draws" else ""))
    target = pathlib.Path(__file__).with_name("generation-rules.json")
    target.write_text("\n".join(lines) + "\n}\n")
