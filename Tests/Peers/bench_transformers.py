# SPDX-License-Identifier: Apache-2.0
"""Measures transformers + torch on switch-base-8's full shape with random weights.

    python bench_transformers.py [--threads 2] [--dtype float32|bfloat16] [--seconds 20] [--model DIR]

Prints one JSON object a line. Decode feeds one token a sequence a step from a cache, as generate() does, after an
encode of 64 tokens; encode runs whole encoder passes over 64-token inputs. A rate is the median over the repetitions
that fit into --seconds after one that is thrown away, in tokens of all sequences together. Random weights route about
evenly, so each step touches the experts that a trained model's would. With --model the weights come from a checkpoint
(Tests/Fixtures/make_full_shape.py makes one), else from transformers' own initial values.
"""

import argparse
import json
import os
import platform
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

INPUT_TOKENS = 64
STEPS = 16


def full_shape() -> transformers.SwitchTransformersConfig:
    return transformers.SwitchTransformersConfig(
        vocab_size=32128, d_model=768, d_kv=64, d_ff=3072, num_heads=12, num_experts=8, expert_capacity=64,
        num_layers=12, num_sparse_encoder_layers=6, num_decoder_layers=12, num_sparse_decoder_layers=6,
        dropout_rate=0.0, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0,
    )


def rates(seconds: float, tokens: int, work) -> dict:
    """Repeats `work`, which handles `tokens` tokens and returns the seconds that count, for about `seconds`."""
    work()
    end = time.perf_counter() + seconds
    durations = []
    while len(durations) < 3 or time.perf_counter() < end:
        durations.append(work())
    return {
        "tokens_per_second": round(tokens / statistics.median(durations), 1),
        "best": round(tokens / min(durations), 1),
        "worst": round(tokens / max(durations), 1),
        "repetitions": len(durations),
    }


def encode_work(model, inputs):
    def work() -> float:
        start = time.perf_counter()
        model.encoder(input_ids=inputs)
        return time.perf_counter() - start

    return work


def decode_work(model, inputs):
    """One encode and one step that fills the cross-attention cache, outside the clock, then STEPS steps inside it."""
    mask = torch.ones_like(inputs)

    def step(encoded, tokens, cache):
        output = model(
            encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=tokens, past_key_values=cache,
            use_cache=True,
        )
        return output.logits[:, -1:].argmax(-1)

    encoded = model.encoder(input_ids=inputs)

    def work() -> float:
        cache = transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())
        tokens = step(encoded, torch.zeros(len(inputs), 1, dtype=torch.long), cache)
        start = time.perf_counter()
        for _ in range(STEPS):
            tokens = step(encoded, tokens, cache)
        return time.perf_counter() - start

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each line")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--model", help="a checkpoint directory; random weights without it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    dtype = getattr(torch, arguments.dtype)
    torch.manual_seed(0)

    build = transformers.SwitchTransformersForConditionalGeneration
    if arguments.model:
        model = build.from_pretrained(arguments.model, dtype=dtype).eval()
    else:
        model = build(full_shape()).to(dtype).eval()

    common = {
        "peer": "transformers", "transformers": transformers.__version__, "torch": torch.__version__,
        "threads": arguments.threads, "dtype": arguments.dtype, "input_tokens": INPUT_TOKENS,
        "parameters": sum(p.numel() for p in model.parameters()), "machine": platform.machine(),
    }
    with torch.inference_mode():
        for work in ("decode", "encode"):
            for batch in arguments.batches:
                inputs = torch.randint(3, model.config.vocab_size - 128, (batch, INPUT_TOKENS))
                if work == "decode":
                    measured = rates(arguments.seconds, batch * STEPS, decode_work(model, inputs))
                else:
                    measured = rates(arguments.seconds, batch * INPUT_TOKENS, encode_work(model, inputs))
                print(json.dumps({"work": work, "batch": batch, **measured, **common}), flush=True)


if __name__ == "__main__":
    main()
