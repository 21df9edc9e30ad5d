# SPDX-License-Identifier: Apache-2.0
"""Makes a checkpoint of switch-base-8's full shape with random weights, and what transformers generates with it.

    python make_full_shape.py DIR [--dtype float32|bfloat16] [--seed N] [--threads N]

Writes DIR/config.json, generation_config.json, model.safetensors (619,339,008 parameters: 2.5 GB in float32, 1.2 GB in
bfloat16) and expected.json: prompts of token ids and the greedy continuation of each, computed in float32 from the
stored weights. Random weights know no language; the miniature's spiece.model is copied only because a gateway
needs a tokenizer. Prompts for which rounding could change the answer (two tokens or two experts nearly tied anywhere)
are drawn again, and the remaining margins are in expected.json.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

from reference import TORCH_VERSION, TRANSFORMERS_VERSION, randomize, require_pinned_versions, top_margin

PARAMETERS = 619_339_008
LENGTHS = [4, 9, 16, 24, 37, 52, 64, 96]
NEW_TOKENS = 32
TOKEN_MARGIN = 5e-3
ROUTER_MARGIN = 2e-4


def configuration() -> transformers.SwitchTransformersConfig:
    """google/switch-base-8's published shape."""
    return transformers.SwitchTransformersConfig(
        vocab_size=32128, d_model=768, d_kv=64, d_ff=3072, num_heads=12, num_experts=8, expert_capacity=64,
        num_layers=12, num_sparse_encoder_layers=6, num_decoder_layers=12, num_sparse_decoder_layers=6,
        router_bias=False, router_dtype="float32", router_jitter_noise=0.0, dropout_rate=0.0, dense_act_fn="relu",
        relative_attention_num_buckets=32, relative_attention_max_distance=128, layer_norm_epsilon=1e-6,
        decoder_start_token_id=0, eos_token_id=1, pad_token_id=0,
    )


class RouterMargins:
    """The smallest margin between a token's two best experts, and the number of tokens over capacity."""

    def __init__(self, model):
        self.reset()
        for stack in (model.encoder, model.decoder):
            for block in stack.block:
                if block.is_sparse:
                    block.layer[-1].mlp.router.register_forward_hook(self._hook)

    def reset(self) -> None:
        self.margin, self.dropped, self.choices = float("inf"), 0, set()

    def _hook(self, _module, _inputs, output):
        kept, _, logits = output
        self.margin = min(self.margin, top_margin(logits))
        self.dropped += int((kept.sum(-1) == 0).sum())
        self.choices |= set(logits.argmax(-1).flatten().tolist())


def expect(model, seed: int) -> list:
    """Draws one prompt of each length whose greedy continuation does not depend on rounding, and continues it."""
    margins, rng, entries = RouterMargins(model), random.Random(seed), []
    for length in LENGTHS:
        for _ in range(50):
            prompt = [rng.randrange(3, 32000) for _ in range(length - 1)] + [model.config.eos_token_id]
            margins.reset()
            output = model.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, length, dtype=torch.long), do_sample=False,
                max_new_tokens=NEW_TOKENS, return_dict_in_generate=True, output_logits=True,
            )
            logits = torch.cat(output.logits)
            tokens = output.sequences[0, 1:].tolist()
            if top_margin(logits) < TOKEN_MARGIN or margins.margin < ROUTER_MARGIN or len(set(tokens)) < len(tokens) / 3:
                continue
            entries.append({
                "input_ids": prompt, "token_ids": tokens, "distinct_tokens": len(set(tokens)),
                "smallest_token_margin": round(top_margin(logits), 6), "logit_deviation": round(float(logits.std()), 3),
                "smallest_router_margin": round(margins.margin, 6), "experts_used": len(margins.choices),
                "dropped": margins.dropped,
            })
            print(json.dumps(entries[-1]), flush=True)
            break
        else:
            raise SystemExit(f"no prompt of {length} tokens keeps its margins; choose another --seed")
    return entries


def main() -> None:
    require_pinned_versions()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    start = time.monotonic()
    with torch.no_grad():
        model = transformers.SwitchTransformersForConditionalGeneration(configuration()).eval()
        assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS
        randomize(model, arguments.seed)
        model.to(getattr(torch, arguments.dtype)).save_pretrained(arguments.directory)
        del model
        print(f"weights written after {time.monotonic() - start:.0f} s", flush=True)
        model = transformers.SwitchTransformersForConditionalGeneration.from_pretrained(
            arguments.directory, dtype=torch.float32
        ).eval()
        prompts = expect(model, arguments.seed)
    expected = {
        "transformers": TRANSFORMERS_VERSION, "torch": TORCH_VERSION, "dtype": arguments.dtype,
        "seed": arguments.seed, "max_new_tokens": NEW_TOKENS, "prompts": prompts,
    }
    miniature = pathlib.Path(__file__).resolve().parents[2] / "deploy/models/switch-mini"
    shutil.copy(miniature / "spiece.model", arguments.directory)
    (arguments.directory / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(f"done after {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
