# SPDX-License-Identifier: Apache-2.0
"""Measures transformers + torch on switch-base-8's full shape.

    python bench_transformers.py [--threads 2] [--dtype float32|bfloat16] [--runs 5] [--model DIR] [--turns]

Decode feeds one token per sequence and step with a cache, as generate() does, after encoding 64 tokens and one untimed step;
encode runs whole encoder passes over 64-token inputs. Rates count the tokens of all sequences. With --model the weights come
from a checkpoint (Tests/Fixtures/make_full_shape.py makes one), else from transformers' initial values; random weights route
about evenly, so each step touches about as many experts as a trained model's would. Prints one JSON object per line; with
--turns it measures when `switchyard-bench compare` asks.
"""

import argparse
import os
import time

import turns

os.environ.setdefault("HF_HUB_OFFLINE", "1")

try:
    import torch
    import transformers
except ImportError as error:
    turns.skip(f"{error}; install torch==2.13.0 and transformers==5.23.0")


def full_shape():
    return transformers.SwitchTransformersConfig(
        vocab_size=32128, d_model=768, d_kv=64, d_ff=3072, num_heads=12, num_experts=8, expert_capacity=64,
        num_layers=12, num_sparse_encoder_layers=6, num_decoder_layers=12, num_sparse_decoder_layers=6,
        dropout_rate=0.0, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0,
    )


class Bench:
    def __init__(self, model, input_tokens: int, new_tokens: int):
        self.model, self.input_tokens, self.new_tokens = model, input_tokens, new_tokens
        self.inputs, self.encoded = {}, {}

    def measure(self, work: str, size: int) -> dict:
        with torch.inference_mode():
            seconds, tokens = self.encode(size) if work == "encode" else self.decode(size)
        return {"value": tokens / seconds, "unit": "tokens/s"}

    def encode(self, size: int):
        """The encoder and the decoder's cross keys and values, which Switchyard's encoding includes."""
        if size not in self.inputs:
            self.inputs[size] = torch.randint(3, self.model.config.vocab_size - 128, (size, self.input_tokens))
        start = time.perf_counter()
        self.encoded[size] = self.model.encoder(input_ids=self.inputs[size])
        hidden = self.encoded[size].last_hidden_state
        for block in self.model.decoder.block:
            attention = block.layer[1].EncDecAttention
            attention.k(hidden), attention.v(hidden)
        return time.perf_counter() - start, size * self.input_tokens

    def decode(self, size: int):
        """One untimed step that fills the cross-attention cache, then the timed steps."""
        if size not in self.encoded:
            self.encode(size)
        cache = transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())
        tokens = self.step(size, torch.zeros(size, 1, dtype=torch.long), cache)
        start = time.perf_counter()
        for _ in range(self.new_tokens):
            tokens = self.step(size, tokens, cache)
        return time.perf_counter() - start, size * self.new_tokens

    def step(self, size: int, tokens, cache):
        output = self.model(
            encoder_outputs=self.encoded[size], attention_mask=torch.ones_like(self.inputs[size]),
            decoder_input_ids=tokens, past_key_values=cache, use_cache=True,
        )
        return output.logits[:, -1:].argmax(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--input-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model", help="a checkpoint directory; random weights without it")
    parser.add_argument("--turns", action="store_true", help="measure on request from standard input")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    dtype = getattr(torch, arguments.dtype)
    torch.manual_seed(0)

    build = transformers.AutoModelForSeq2SeqLM if arguments.model else transformers.SwitchTransformersForConditionalGeneration
    if arguments.model:
        model = build.from_pretrained(arguments.model, dtype=dtype).eval()
    else:
        model = build(full_shape()).to(dtype).eval()
    bench = Bench(model, arguments.input_tokens, arguments.new_tokens)
    versions = (
        f"transformers {transformers.__version__}, torch {torch.__version__}, {arguments.dtype}, "
        f"{arguments.threads} threads, {sum(p.numel() for p in model.parameters()):,} parameters"
    )
    cases = [(work, batch) for work in ("decode", "encode") for batch in arguments.batches]
    if arguments.turns:
        turns.serve(versions, cases, bench.measure)
    else:
        turns.run_alone(versions, cases, bench.measure, arguments.runs)


if __name__ == "__main__":
    main()
