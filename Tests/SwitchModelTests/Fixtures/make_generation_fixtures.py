#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes generation.json: what transformers' generate() makes of scores that a formula gives.

Needs transformers 5.23.0 and torch 2.13.0 (CPU). Run it from anywhere:

    python Tests/SwitchModelTests/Fixtures/make_generation_fixtures.py

The model is a table: the scores of the next token depend on the step and the last token alone, and come from integers,
so that the Swift tests compute the same floats and the file holds only parameters and results. Everything that chooses
tokens is transformers' own.
"""

import itertools
import json
import pathlib
import random
import warnings

import numpy
import torch
import transformers
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.generation.logits_process import (LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper,
                                                    TopPLogitsWarper)
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

END = 1


def require_versions(pinned="5.23.0"):
    assert transformers.__version__ == pinned, transformers.__version__
    assert torch.__version__.split("+")[0] == "2.13.0", torch.__version__


def scores(seed, steps, vocabulary, end_bias, end_from):
    """[steps, last token, next token], float32: splitmix64 of the place, 24 bits of it, within -4..<4."""
    step, last, token = numpy.meshgrid(
        *(numpy.arange(n, dtype=numpy.uint64) for n in (steps, vocabulary, vocabulary)), indexing="ij")
    with numpy.errstate(over="ignore"):
        mixed = (numpy.uint64(seed) * numpy.uint64(1_000_003) + step) * numpy.uint64(1_000_003) + last
        mixed = (mixed * numpy.uint64(1_000_003) + token + numpy.uint64(1)) * numpy.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> numpy.uint64(31))
    table = (mixed >> numpy.uint64(40)).astype(numpy.float32) / numpy.float32(2**21) - numpy.float32(4)
    table[end_from:, :, END] += numpy.float32(end_bias)
    return torch.from_numpy(table)


class Encoder(torch.nn.Module):
    main_input_name = "input_ids"

    def forward(self, input_ids=None, **kwargs):
        return BaseModelOutput(last_hidden_state=torch.zeros(*input_ids.shape, 1))


class TableModel(PreTrainedModel, GenerationMixin):
    config_class = PretrainedConfig
    main_input_name = "input_ids"

    def __init__(self, config, table):
        super().__init__(config)
        self.encoder = Encoder()
        self.table = table
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.post_init()

    def _init_weights(self, module):
        pass

    def get_encoder(self, modality=None):
        return self.encoder

    def forward(self, input_ids=None, decoder_input_ids=None, encoder_outputs=None, **kwargs):
        rows = self.table[decoder_input_ids.shape[1] - 1][decoder_input_ids[:, -1]]
        return Seq2SeqLMOutput(logits=rows[:, None, :])


def generate(case):
    table = scores(case["table"], case["max_new_tokens"], case["vocabulary"], case["end_bias"], case["end_from"])
    config = PretrainedConfig(is_encoder_decoder=True, decoder_start_token_id=case["start"], eos_token_id=END,
                              pad_token_id=0, vocab_size=case["vocabulary"])
    config.num_hidden_layers = 1
    model = TableModel(config, table).eval()
    settings = GenerationConfig(
        max_new_tokens=case["max_new_tokens"], min_new_tokens=case["min_new_tokens"] or None,
        num_beams=case["num_beams"], length_penalty=case["length_penalty"],
        early_stopping={"heuristic": False, "always": True, "never": "never"}[case["early_stopping"]],
        repetition_penalty=case["repetition_penalty"], num_return_sequences=case["num_return_sequences"],
        do_sample=False, use_cache=False, decoder_start_token_id=case["start"], eos_token_id=END, pad_token_id=0,
        return_dict_in_generate=True, output_scores=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output = model.generate(torch.tensor([[5, 6, 1]]), generation_config=settings)
    results = []
    for index, row in enumerate(output.sequences):
        ids = row.tolist()[1:]
        if case["num_beams"] > 1:
            # Shorter sequences are padded, even with the end token; the beam indices tell their true length.
            ids = ids[:int((output.beam_indices[index] >= 0).sum())]
        elif END in ids:
            ids = ids[:ids.index(END) + 1]
        logprobs, last = [], case["start"]
        for step, token in enumerate(ids):
            logprobs.append(round(torch.log_softmax(table[step][last], dim=-1)[token].item(), 5))
            last = token
        result = {"ids": ids, "logprobs": logprobs}
        if case["num_beams"] > 1:
            result["score"] = round(output.sequences_scores[index].item(), 5)
        results.append(result)
    return results


def make_cases():
    generator = random.Random(5)
    cases = []

    def add(**parameters):
        case = {"table": len(cases) + 1, "vocabulary": 24, "start": 0, "end_bias": 0.0, "end_from": 0,
                "max_new_tokens": 10, "min_new_tokens": 0, "num_beams": 1, "length_penalty": 1.0,
                "early_stopping": "heuristic", "repetition_penalty": 1.0, "num_return_sequences": 1}
        case.update(parameters)
        cases.append(case)

    for bias, start, penalty, least in itertools.product((-2.0, 2.0), (0, 3), (1.0, 1.4, 0.6), (0, 4)):
        add(end_bias=bias, start=start, repetition_penalty=penalty, min_new_tokens=least)
    add(vocabulary=1000, max_new_tokens=3)
    add(max_new_tokens=1)
    for beams, penalty, stopping in itertools.product((2, 4, 5), (0.0, 0.5, 1.0, 2.0, -1.0),
                                                      ("heuristic", "always", "never")):
        for bias, start in ((1.5, 0), (-1.0, 3)):
            add(num_beams=beams, length_penalty=penalty, early_stopping=stopping, end_bias=bias, start=start,
                num_return_sequences=generator.choice([1, 2, beams]))
    for _ in range(140):
        beams = generator.choice([2, 3, 4, 5, 8])
        most = generator.choice([1, 2, 5, 12, 20])
        add(vocabulary=generator.choice([17, 24, 40]), num_beams=beams, max_new_tokens=most,
            min_new_tokens=generator.choice([0, 0, 1, most // 2, most]),
            length_penalty=generator.choice([0.0, 0.5, 1.0, 2.0, -1.0, 0.7]),
            early_stopping=generator.choice(["heuristic", "always", "never"]),
            repetition_penalty=generator.choice([1.0, 1.0, 1.2, 2.0, 0.8]), start=generator.choice([0, 0, 7]),
            end_bias=generator.choice([-4.0, 0.0, 1.0, 3.0, 6.0]), end_from=generator.choice([0, 0, 3, 8]),
            num_return_sequences=generator.randint(1, beams))
    return cases


def find_telling_cases(number):
    """Cases in which a slightly wrong rule for stopping a beam search would give another result."""
    right = GenerationMixin._check_early_stop_heuristic

    def one_longer(*arguments, **named):
        return right(*arguments, **{**named, "cur_len": named["cur_len"] + 1})

    def never_at_greatest_length(*arguments, **named):
        if named["early_stopping"] == "never":
            named = {**named, "cur_len": named["max_length"]}
        return right(*arguments, **named)

    generator = random.Random(7)
    cases = []
    for wrong, stopping, penalties, wanted in (
            (one_longer, ["heuristic", "never"], [-1.0, -0.5, 0.5, 1.0, 2.0], 6),
            (never_at_greatest_length, ["never"], [-2.0, -1.0, -0.5], 2)):
        found = 0
        for _ in range(3000):
            number += 1
            beams = generator.choice([2, 3, 4])
            case = {"table": number, "vocabulary": 17, "start": 0, "end_bias": generator.choice([1.0, 2.0, 3.0]),
                    "end_from": 0, "max_new_tokens": 12, "min_new_tokens": 0, "num_beams": beams,
                    "length_penalty": generator.choice(penalties),
                    "early_stopping": generator.choice(stopping), "repetition_penalty": 1.0,
                    "num_return_sequences": beams}
            expected = generate(case)
            GenerationMixin._check_early_stop_heuristic = staticmethod(wrong)
            differs = generate(case) != expected
            GenerationMixin._check_early_stop_heuristic = staticmethod(right)
            if differs:
                cases.append(case)
                found += 1
            if found == wanted:
                break
        assert found == wanted, (wrong.__name__, found)
    return cases


def make_filters():
    generator = random.Random(6)
    filters = []
    for number in range(60):
        vocabulary = generator.choice([24, 200, 700])
        temperature = generator.choice([1.0, 0.5, 0.7, 1.7, 4.0])
        top_k = generator.choice([0, 1, 5, 50, 1000])
        top_p = generator.choice([1.0, 0.9, 0.5, 0.1, 0.0, 0.99])
        row = scores(1000 + number, 1, vocabulary, 0.0, 0)[0][0][None, :]
        processors = LogitsProcessorList()
        if temperature != 1.0:
            processors.append(TemperatureLogitsWarper(temperature))
        if top_k != 0:
            processors.append(TopKLogitsWarper(top_k=top_k))
        if top_p < 1.0:
            processors.append(TopPLogitsWarper(top_p=top_p))
        filtered = processors(torch.zeros((1, 1), dtype=torch.long), row)[0]
        kept = torch.isfinite(filtered).nonzero().flatten().tolist()
        filters.append({"table": 1000 + number, "vocabulary": vocabulary, "temperature": temperature, "top_k": top_k,
                        "top_p": top_p, "ids": kept, "scores": [round(filtered[id].item(), 5) for id in kept]})
    return filters


def main():
    require_versions()
    torch.set_num_threads(1)
    cases = make_cases()
    cases += find_telling_cases(len(cases))
    for case in cases:
        case["results"] = generate(case)
    content = {"transformers": transformers.__version__, "searches": cases, "filters": make_filters()}
    path = pathlib.Path(__file__).with_name("generation.json")
    text = json.dumps(content, separators=(",", ":"))
    path.write_text(text.replace('{"table"', '\n{"table"') + "\n")
    print(f"{len(cases)} searches, {len(content['filters'])} filters, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
