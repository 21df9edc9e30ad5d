#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes group-beams.json: what transformers' group beam search makes of scores that a formula gives.

Needs transformers 4.55.4, the last release line that has this search, and torch 2.13.0 (CPU). Run it from anywhere:

    python Tests/SwitchModelTests/Fixtures/make_group_beam_fixtures.py

The model and the cases are those of make_generation_rule_fixtures.py: plain searches, each other parameter beside groups, and
random combinations, with one, several or no end tokens and various padding tokens. Each processor of scores is that of 5.23: the
encoder's repetition penalty of 4.55 changes the scores of the first beam alone, which is corrected here as it is there.
"""

import json
import math
import pathlib
import random
import warnings

import torch
from make_generation_fixtures import TableModel, require_versions, scores
from make_generation_rule_fixtures import ENCODER, base, rules, settings_of
from transformers import EncoderRepetitionPenaltyLogitsProcessor, GenerationConfig, PretrainedConfig, logging

PENALIZE = EncoderRepetitionPenaltyLogitsProcessor.__call__


def penalize_all(self, input_ids, scores):
    """The encoder's repetition penalty for every beam, as in 5.23."""
    own, self.encoder_input_ids = self.encoder_input_ids, self.encoder_input_ids.repeat_interleave(len(scores), dim=0)
    scores = PENALIZE(self, input_ids, scores)
    self.encoder_input_ids = own
    return scores


def generate(case):
    settings = settings_of(case)
    steps = settings["max_new_tokens"] + len(case["prefix"])
    table = scores(case["table"], steps, case["vocabulary"], case["end_bias"], 0)
    tokens = {"decoder_start_token_id": case["start"], "eos_token_id": case["ends"] or None, "pad_token_id": case["pad"]}
    config = PretrainedConfig(is_encoder_decoder=True, vocab_size=case["vocabulary"], **tokens)
    config.num_hidden_layers = 1
    model = TableModel(config, table).eval()
    settings = GenerationConfig(**settings, **tokens, use_cache=False, return_dict_in_generate=True, output_scores=True)
    extra = {}
    if case["prefix"]:
        extra["decoder_input_ids"] = torch.tensor([[case["start"]] + case["prefix"]])
    inputs = torch.tensor([[token for token in ENCODER if token < case["vocabulary"]]])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=settings, **extra)


def search(case):
    """Fills in the results; False where transformers refuses, or leaves them undefined: no finite choice, or a tie."""
    forced = case["settings"].get("forced_eos_token_id")
    if isinstance(forced, list) and len(forced) > 1:
        return False  # Forced tokens all have score 0.
    suppressed = case["settings"].get("suppress_tokens", [])
    if case["settings"].get("forced_bos_token_id") in suppressed or forced == [1] and 1 in suppressed:
        return False  # Nothing would be left to choose, which later releases refuse.
    try:
        output = generate(case)
    except (RuntimeError, ValueError):
        return False
    # The scores of a group that has ended are those of its padding.
    if any(not torch.isfinite(row).any(dim=-1).all() or torch.isnan(row).any() for row in output.scores):
        return False
    values = [score.item() for score in output.sequences_scores]
    if not all(math.isfinite(value) and value > -1e6 for value in values) or len(set(values)) < len(values):
        return False
    case["results"] = []
    for row, value in zip(output.sequences.tolist(), values):
        ids = row[1 + len(case["prefix"]):]
        ends = [place for place, token in enumerate(ids) if token in case["ends"]]
        case["results"].append({"ids": ids[:ends[0] + 1] if ends else ids, "score": float(f"{value:.9g}")})
    return True


def groups(generator):
    count = generator.choice([2, 2, 3, 4])
    beams = count * generator.choice([1, 2, 2, 3])
    return {"num_beams": beams, "num_beam_groups": count, "diversity_penalty": generator.choice([0.1, 0.5, 1.0, 3.0]),
            "num_return_sequences": generator.randint(1, beams), "length_penalty": generator.choice([1.0, 0.0, 2.0, -0.5]),
            "early_stopping": generator.choice(["heuristic", "always", "never"])}


def make(number, generator, chosen):
    """A case of this table with these other parameters; None if it cannot be compared."""
    case = base(number, generator, **groups(generator))
    case["vocabulary"] = generator.choice([24, 40])
    case["ends"] = generator.choice([case["ends"], case["ends"], []])
    case["pad"] = generator.choice([0, 3, None])
    all_rules = rules(generator, case["settings"]["max_new_tokens"])
    case["settings"].update({name: all_rules[name] for name in chosen})
    # This release takes no bias for token 0.
    case["settings"]["sequence_bias"] = [bias for bias in case["settings"].get("sequence_bias", []) if 0 not in bias["tokens"]]
    if not case["settings"]["sequence_bias"]:
        del case["settings"]["sequence_bias"]
    return case if search(case) else None


def main():
    require_versions("4.55.4")
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    EncoderRepetitionPenaltyLogitsProcessor.__call__ = penalize_all
    generator = random.Random(21)
    names = list(rules(generator, 4))
    wanted = [[] for _ in range(60)] + [[name] for name in names for _ in range(3)]
    wanted += [[name for name in names if generator.random() < 0.3] for _ in range(120)]
    cases, number = [], 50_000
    for chosen in wanted:
        case = None
        while case is None:
            number += 1
            case = make(number, generator, chosen)
        cases.append(case)
    rows = ",\n".join("  " + json.dumps(case, separators=(",", ":")) for case in cases)
    target = pathlib.Path(__file__).with_name("group-beams.json")
    target.write_text(f"[\n{rows}\n]\n")


if __name__ == "__main__":
    main()
