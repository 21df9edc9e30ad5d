# SPDX-License-Identifier: Apache-2.0
"""Writes generation-keys.json: what transformers answers with the miniature under many generation_config.json files.

    python make_generation_keys.py

Needs transformers 5.23.0 and torch 2.13.0+cpu (`reference.py` says why). Each case is a generation_config.json, or keys of a
config.json that stands in for it ("in": "config"), the arguments of a call to generate(), and for each prompt the ids of the
answers without the decoder start token and decoder prefix.

With transformers 4.55.4, the last release line with group beam search, it writes generation-keys-groups.json instead: the cases
with groups of beams. Their prompts and ids are as above.
"""

import json
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers import SwitchTransformersForConditionalGeneration, T5Tokenizer

from reference import require_pinned_versions

HERE = pathlib.Path(__file__).resolve().parent
MINI = HERE.parents[1] / "deploy/models/switch-mini"
BASE = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}

# Name, keys of the file, arguments of the call, whether the keys stand in config.json.
CASES = [
    ("no repeated n-grams", {"no_repeat_ngram_size": 2, "max_new_tokens": 24}, {}, False),
    ("no repeated n-grams, beams", {"no_repeat_ngram_size": 2, "max_new_tokens": 16}, {"num_beams": 3}, False),
    ("a forced first token", {"forced_bos_token_id": 777, "max_new_tokens": 10}, {}, False),
    ("a forced last token", {"forced_eos_token_id": 1, "max_new_tokens": 4}, {}, False),
    ("temperature 0 without sampling", {"temperature": 0.0, "do_sample": False, "max_new_tokens": 10}, {}, False),
    ("top_p 0 without sampling", {"top_p": 0.0, "top_k": 0, "do_sample": False, "max_new_tokens": 10}, {}, False),
    ("a start from bos", {"decoder_start_token_id": None, "bos_token_id": 5, "max_new_tokens": 10}, {}, False),
    ("lengths with the start token", {"max_length": 8, "min_length": 6}, {}, False),
    ("lengths with the start token, beams", {"max_length": 8, "min_length": 6}, {"num_beams": 2}, False),
    ("the greatest length of 20", {"max_length": 20}, {}, False),
    ("keys of config.json", {"max_length": 14, "num_beams": 3, "length_penalty": 2.0, "early_stopping": True,
                             "min_length": 4}, {}, True),
    ("n-grams in config.json", {"max_length": 14, "no_repeat_ngram_size": 3}, {}, True),
    ("no sampling over the model's", {"do_sample": True, "top_k": 20, "temperature": 0.7, "max_new_tokens": 12},
     {"do_sample": False}, False),
    ("no sampling over the model's, beams", {"do_sample": True, "top_k": 20, "max_new_tokens": 12},
     {"do_sample": False, "num_beams": 3}, False),
    ("a length penalty of 0 over the model's", {"length_penalty": 2.0, "num_beams": 4, "max_new_tokens": 14,
                                                "early_stopping": True}, {"length_penalty": 0.0}, False),
    ("one beam over the model's", {"length_penalty": 2.0, "num_beams": 4, "max_new_tokens": 14}, {"num_beams": 1}, False),
    ("never stopping early", {"num_beams": 3, "max_new_tokens": 12}, {"early_stopping": "never"}, False),
    ("no n-grams of the input", {"encoder_no_repeat_ngram_size": 1, "max_new_tokens": 12}, {}, False),
    ("a penalty for other tokens than the input's", {"encoder_repetition_penalty": 2.5, "max_new_tokens": 12}, {}, False),
    ("a growing end", {"exponential_decay_length_penalty": [3, 2.5], "max_new_tokens": 20}, {}, False),
    ("two end tokens", {"eos_token_id": [1, 2046], "max_new_tokens": 20}, {}, False),
    ("two end tokens, beams", {"eos_token_id": [1, 2046], "max_new_tokens": 20}, {"num_beams": 3}, False),
    ("suppressed tokens", {"suppress_tokens": [2047, 2046], "max_new_tokens": 12}, {}, False),
    ("tokens suppressed at the beginning", {"begin_suppress_tokens": [2047, 1], "max_new_tokens": 12}, {}, False),
    ("bad words", {"bad_words_ids": [[2047], [3, 4]], "max_new_tokens": 12}, {}, False),
    ("a bias", {"sequence_bias": [[[2046], 20.0], [[2047], -20.0]], "max_new_tokens": 12}, {}, False),
    ("no fewest tokens over the model's", {"min_new_tokens": 12, "max_new_tokens": 16}, {"min_new_tokens": 0}, False),
    ("no end token", {"eos_token_id": None, "max_new_tokens": 24}, {}, False),
    ("no end token, fewest tokens", {"eos_token_id": None, "max_new_tokens": 24, "min_new_tokens": 22}, {}, False),
    ("no end token, beams", {"eos_token_id": None, "max_new_tokens": 20, "min_length": 4}, {"num_beams": 3}, False),
    ("no end token, several beams", {"eos_token_id": None, "max_new_tokens": 16, "num_beams": 4, "length_penalty": 2.0,
                                     "early_stopping": "never"}, {}, False),
    ("no end token in config.json", {"eos_token_id": None, "max_length": 24}, {}, True),
    ("no padding token", {"pad_token_id": None, "max_new_tokens": 12}, {"num_beams": 3}, False),
    ("another padding token", {"pad_token_id": 2047, "max_new_tokens": 12}, {"num_beams": 3}, False),
    # Filters that leave one token, so that nothing depends on the draws.
    ("top_k that leaves one token", {"do_sample": True, "top_k": 1, "max_new_tokens": 12}, {}, False),
    ("top_p that leaves one token", {"do_sample": True, "top_k": 0, "top_p": 0.01, "max_new_tokens": 12}, {}, False),
    ("min_p that leaves one token", {"do_sample": True, "top_k": 0, "min_p": 1.0, "max_new_tokens": 12}, {}, False),
    ("typical_p that leaves one token", {"do_sample": True, "top_k": 0, "typical_p": 0.0001, "max_new_tokens": 12}, {}, False),
    ("epsilon_cutoff that leaves one token", {"do_sample": True, "top_k": 0, "epsilon_cutoff": 0.99, "max_new_tokens": 12}, {},
     False),
    ("eta_cutoff that leaves one token", {"do_sample": True, "top_k": 0, "eta_cutoff": 0.99, "temperature": 0.01,
                                          "max_new_tokens": 12}, {}, False),
    ("a temperature that leaves one token", {"do_sample": True, "top_k": 0, "temperature": 1e-5, "max_new_tokens": 12}, {}, False),
    ("scores made log-probabilities again, beams", {"renormalize_logits": True, "repetition_penalty": 1.8,
                                                    "max_new_tokens": 16}, {"num_beams": 4}, False),
    ("scores made log-probabilities again after bans, beams", {"renormalize_logits": True, "suppress_tokens": [2047, 2046, 3],
                                                               "max_new_tokens": 16}, {"num_beams": 3}, False),
    ("a decoder prefix", {"max_new_tokens": 8}, {"decoder_input_ids": [0, 2047, 44]}, False),
    ("a decoder prefix, beams", {"max_length": 12}, {"decoder_input_ids": [2047, 44], "num_beams": 3}, False),
]

# As above, with groups of beams.
GROUP_CASES = [
    ("groups of beams", {"max_new_tokens": 16}, {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5}, False),
    ("groups of one beam", {"max_new_tokens": 16}, {"num_beams": 3, "num_beam_groups": 3, "diversity_penalty": 1.0}, False),
    ("groups of the model's", {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 2.5, "max_new_tokens": 14,
                               "no_repeat_ngram_size": 2, "length_penalty": 2.0}, {}, False),
    ("groups of the model's in config.json", {"num_beams": 4, "num_beam_groups": 4, "diversity_penalty": 1.5, "max_length": 14,
                                              "early_stopping": True}, {}, True),
    ("groups that end at different lengths", {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 8.0,
                                              "max_new_tokens": 20, "pad_token_id": 2047}, {}, False),
    ("groups without a padding token", {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 8.0, "max_new_tokens": 20,
                                        "pad_token_id": None}, {}, False),
    ("groups and a decoder prefix", {"max_new_tokens": 10, "repetition_penalty": 1.3},
     {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.75, "decoder_input_ids": [0, 2047, 44]}, False),
]


def main():
    has_groups = transformers.__version__ == "4.55.4"
    if not has_groups:
        require_pinned_versions()
    torch.set_num_threads(1)
    kind = {"torch_dtype" if has_groups else "dtype": torch.float32}
    tokenizer = T5Tokenizer.from_pretrained(MINI)
    texts = [prompt["prompt"] for prompt in json.loads((MINI / "prompts.json").read_text())[:4]]
    prompts = [tokenizer(text).input_ids for text in texts]
    results = []
    for name, keys, call, in_config in GROUP_CASES if has_groups else CASES:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            shutil.copy(MINI / "model.safetensors", folder)
            config = json.loads((MINI / "config.json").read_text())
            if in_config:
                config |= keys
            else:
                file = {key: value for key, value in (BASE | keys).items() if value is not None}
                (folder / "generation_config.json").write_text(json.dumps(file))
            (folder / "config.json").write_text(json.dumps(config))
            model = SwitchTransformersForConditionalGeneration.from_pretrained(folder, **kind).eval()
        arguments = dict(call)
        held = 1
        if "decoder_input_ids" in call:
            ids = call["decoder_input_ids"]
            held = len(ids) + (ids[0] != 0)
            arguments["decoder_input_ids"] = torch.tensor([ids])
        answers = []
        if has_groups:  # All beams, so that every group is compared.
            arguments["num_return_sequences"] = call.get("num_beams", keys.get("num_beams"))
        for prompt in prompts:
            with torch.no_grad():
                out = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                                     **arguments)
            if has_groups:
                rows = [row[held:] for row in out.tolist()]
                answers.append([row[:row.index(1) + 1] if 1 in row else row for row in rows])
            else:
                answers.append(out[0].tolist()[held:])
        if not in_config:
            keys = {key: value for key, value in (BASE | keys).items() if value is not None}
        results.append({"name": name, "in": "config" if in_config else "generation", "keys": keys, "call": call,
                        "answers": answers})
    lines = ",\n".join(json.dumps(result) for result in results)
    text = f'{{"prompts": {json.dumps(prompts)},\n"cases": [\n{lines}\n]}}\n'
    (HERE / ("generation-keys-groups.json" if has_groups else "generation-keys.json")).write_text(text)


main()
