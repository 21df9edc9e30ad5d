# SPDX-License-Identifier: Apache-2.0
"""Measures CTranslate2 on a dense T5-base with random weights: as many operations per token as switch-base-8.

    python bench_ctranslate2.py [--threads 2] [--compute-type float32|int8] [--runs 5] [--model DIR] [--turns]

CTranslate2 runs no sparse models, so this is the dense model of the same shape. Greedy, a fixed number of new tokens. It
has no interface for a single step, so a rate is N tokens of each sequence over the time of one call for N + 1 new tokens
minus that of one call for 1 (which includes the encoder and the first step). --model keeps the converted model in a folder
and reuses it; the folder `checkpoint` in it is the same model in Hugging Face layout, for other systems. Prints one JSON object per line; with --turns it measures when `switchyard-bench compare` asks.
"""

import argparse
import os
import pathlib
import random
import tempfile
import time

import turns

os.environ.setdefault("HF_HUB_OFFLINE", "1")

try:
    import ctranslate2
except ImportError as error:
    turns.skip(f"{error}; install ctranslate2==4.8.5")

VOCABULARY = 32128
# Ids that have other names in the vocabulary below.
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
TOKENS = [PAD, END, UNKNOWN] + [f"t{index}" for index in range(3, VOCABULARY)]


class Names:
    """As much of a tokenizer as the converter needs."""

    pad_token, eos_token, unk_token = PAD, END, UNKNOWN

    def convert_ids_to_tokens(self, index: int) -> str:
        return TOKENS[index]


def convert(directory: pathlib.Path) -> None:
    """Writes a float32 model with transformers' initial weights, also in Hugging Face layout; compute types are chosen at
    loading."""
    try:
        import torch
        import transformers
        from ctranslate2.converters.transformers import T5Loader
    except ImportError as error:
        turns.skip(f"{error}; the model is made with torch and transformers")
    torch.manual_seed(0)
    configuration = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=768, d_kv=64, d_ff=3072, num_heads=12, num_layers=12, num_decoder_layers=12,
        feed_forward_proj="relu", decoder_start_token_id=0, eos_token_id=1, pad_token_id=0,
    )
    with torch.no_grad():
        model = transformers.T5ForConditionalGeneration(configuration).eval()
        model.save_pretrained(directory / "checkpoint")
        loader = T5Loader()
        spec = loader.get_model_spec(model)
        loader.set_config(spec.config, model, Names())
        loader.set_vocabulary(spec, TOKENS)
        spec.validate()
        spec.optimize()
        directory.mkdir(parents=True, exist_ok=True)
        spec.save(str(directory))


class Bench:
    def __init__(self, translator, input_tokens: int, new_tokens: int):
        self.translator, self.input_tokens, self.new_tokens = translator, input_tokens, new_tokens
        self.inputs = {}

    def measure(self, work: str, size: int) -> dict:
        assert work == "decode"
        if size not in self.inputs:
            rng = random.Random(size)
            self.inputs[size] = [
                [TOKENS[rng.randrange(3, VOCABULARY)] for _ in range(self.input_tokens - 1)] + [END] for _ in range(size)
            ]
            self.seconds(size, 2)
        first = self.seconds(size, 1)
        seconds = self.seconds(size, self.new_tokens + 1) - first
        return {"value": size * self.new_tokens / seconds, "unit": "tokens/s", "details": {"first_seconds": first}}

    def seconds(self, size: int, length: int) -> float:
        start = time.perf_counter()
        results = self.translator.translate_batch(
            self.inputs[size], beam_size=1, min_decoding_length=length, max_decoding_length=length, disable_unk=False,
            return_end_token=True,
        )
        seconds = time.perf_counter() - start
        lengths = {len(result.hypotheses[0]) for result in results}
        if lengths != {length}:
            raise RuntimeError(f"{length} new tokens were requested, and {sorted(lengths)} came")
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compute-type", default="float32")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--input-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model", type=pathlib.Path, help="keep the converted model here")
    parser.add_argument("--turns", action="store_true", help="measure on request from standard input")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        directory = arguments.model or pathlib.Path(scratch) / "t5-base"
        if not (directory / "model.bin").exists() or not (directory / "checkpoint").exists():
            convert(directory)
        translator = ctranslate2.Translator(
            str(directory), device="cpu", compute_type=arguments.compute_type, inter_threads=1,
            intra_threads=arguments.threads,
        )
    bench = Bench(translator, arguments.input_tokens, arguments.new_tokens)
    versions = (
        f"CTranslate2 {ctranslate2.__version__}, dense T5-base with random weights, computing in "
        f"{translator.compute_type}, {arguments.threads} threads"
    )
    cases = [("decode", batch) for batch in arguments.batches]
    if arguments.turns:
        turns.serve(versions, cases, bench.measure)
    else:
        turns.run_alone(versions, cases, bench.measure, arguments.runs)


if __name__ == "__main__":
    main()
