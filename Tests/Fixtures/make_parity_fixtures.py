# SPDX-License-Identifier: Apache-2.0
"""Makes the parity fixtures: tiny random Switch Transformers and what transformers computes with them.

    python make_parity_fixtures.py [--only NAME ...]       writes parity/NAME beside this script

Needs transformers 5.23.0 and torch 2.13.0+cpu (`reference.py` says why), safetensors and numpy. Each folder holds a
checkpoint in Hugging Face layout and

- golden.json: prompts, teacher-forced decoder inputs, padded batches, generation parameters and expected ids; or, for a
  checkpoint that stores another one's weights in another format, {"sameAs": NAME};
- golden.safetensors: rows of all prompts one after the other, so [tokens, ...] with tokens = the sum of their lengths.

| tensor | shape | dtype | rows |
|---|---|---|---|
| encoder.final | [tokens, d_model] | F32 | every prompt, after the final layer norm |
| encoder.block.I | [tokens, d_model] | F32 | detailed prompts, output of block I, of all but the last |
| decoder.block.I | [tokens, d_model] | F32 | the same of the detailed prompts' decoder inputs |
| decoder.final | [tokens, d_model] | F32 | the same, after the final layer norm |
| logits | [tokens, vocab] | F32 | every prompt's decoder inputs, fed in one call |
| STACK.router.I.choice | [tokens] | U8 | every prompt; the expert chosen, before capacity |
| STACK.router.I.weight | [tokens] | F32 | every prompt; the probability of that expert |
| STACK.router.I.dropped | [tokens] | U8 | every prompt; 1 where the token was over capacity |
| greedy.logits | [steps, vocab] | F32 | detailed prompts, each cached step of the generation named greedy |
| batch.N.encoder, batch.N.logits | as above | F32 | the prompts of batch N, computed right-padded, without the padding |

A golden that depends on a near tie would test the rounding of one machine. So a prompt is drawn again if the two best
experts or the two best tokens of any row are closer than a margin far above float32 rounding, or if noise on the scores
changes any generated id.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import random
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import load_file, save_file

from reference import TORCH_VERSION, TRANSFORMERS_VERSION, randomize, require_pinned_versions, top_margin

LENGTHS = [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 19, 23, 27, 33, 40, 48, 57, 64, 65, 72, 80]
DECODER_LENGTHS = [1, 9, 2, 24, 5, 14, 3, 8, 12, 1, 30, 6, 17, 4, 21, 10, 36, 7, 15, 11, 28, 2, 20, 13]
DETAILED = [0, 5, 12, 16, 21]
BATCHES = [[3, 12, 0, 17], [21, 6, 10, 14, 23, 1]]

GENERATIONS = {
    "greedy": {"max_new_tokens": 20},
    "greedy-minimum": {"max_new_tokens": 12, "min_new_tokens": 9},
    "greedy-repetition": {"max_new_tokens": 14, "repetition_penalty": 1.5},
    "beam": {"max_new_tokens": 16, "num_beams": 4},
    "beam-short": {"max_new_tokens": 14, "num_beams": 4, "length_penalty": 0.0, "early_stopping": True},
    "beam-long": {
        "max_new_tokens": 14, "num_beams": 4, "length_penalty": 2.0, "early_stopping": "never",
        "num_return_sequences": 3,
    },
    "beam-negative": {
        "max_new_tokens": 12, "num_beams": 3, "length_penalty": -1.0, "num_return_sequences": 2, "min_new_tokens": 3,
    },
    "beam-repetition": {
        "max_new_tokens": 12, "num_beams": 2, "length_penalty": 0.7, "early_stopping": True, "repetition_penalty": 1.3,
    },
}

# The margins that a prompt must keep, in units of logits.
ROUTER_MARGIN = 5e-4
GENERATION_ROUTER_MARGIN = 5e-5
TOKEN_MARGIN = 1e-3
SCORE_NOISE = 1e-4


@dataclasses.dataclass
class Fixture:
    """One model: its configuration, how its weights are stored, and which goldens to make."""

    name: str
    seed: int
    config: dict
    dtype: torch.dtype = torch.float32
    lengths: list = dataclasses.field(default_factory=lambda: LENGTHS)
    decoder_lengths: list = dataclasses.field(default_factory=lambda: DECODER_LENGTHS)
    detailed: list = dataclasses.field(default_factory=lambda: DETAILED)
    generations: list = dataclasses.field(default_factory=lambda: list(GENERATIONS))
    expects_drops: bool = False


COMMON = dict(decoder_start_token_id=0, eos_token_id=1, pad_token_id=0, dropout_rate=0.0, router_jitter_noise=0.0)

FIXTURES = [
    # Unequal stacks, every block sparse, heads x d_kv unlike d_model, odd widths everywhere.
    Fixture(
        "asymmetric", seed=11,
        config=dict(
            vocab_size=90, d_model=18, d_kv=5, num_heads=3, d_ff=33, num_experts=4, num_layers=3, num_decoder_layers=5,
            encoder_sparse_step=1, decoder_sparse_step=1, expert_capacity=64,
        ),
    ),
    # An untied head, a biased router, and a capacity that drops tokens in the encoder and in a decoder fed all at once.
    Fixture(
        "capacity", seed=23, expects_drops=True,
        config=dict(
            vocab_size=97, d_model=20, d_kv=6, num_heads=4, d_ff=32, num_experts=5, num_layers=4, num_decoder_layers=4,
            encoder_sparse_step=2, decoder_sparse_step=2, expert_capacity=8, tie_word_embeddings=False,
            router_bias=True,
        ),
    ),
    # Sparse blocks 1 and 5, inputs long past the last relative bucket and a real capacity, token ids in unusual places.
    Fixture(
        "step4", seed=37, dtype=torch.bfloat16, expects_drops=True,
        lengths=LENGTHS[:-1] + [150], decoder_lengths=DECODER_LENGTHS[:-1] + [130],
        generations=["greedy", "beam", "beam-long"],
        config=dict(
            vocab_size=80, d_model=22, d_kv=8, num_heads=2, d_ff=40, num_experts=3, num_layers=6, num_decoder_layers=6,
            encoder_sparse_step=4, decoder_sparse_step=4, expert_capacity=64, decoder_start_token_id=4, eos_token_id=7,
            pad_token_id=2,
        ),
    ),
    # bfloat16 in the file, float32 sums; a capacity that sometimes drops tokens.
    Fixture(
        "bfloat16", seed=41, dtype=torch.bfloat16, expects_drops=True, generations=["greedy", "beam", "beam-short"],
        config=dict(
            vocab_size=112, d_model=32, d_kv=8, num_heads=4, d_ff=48, num_experts=8, num_layers=2, num_decoder_layers=3,
            encoder_sparse_step=2, decoder_sparse_step=2, expert_capacity=9,
        ),
    ),
    # float16 in the file, other relative buckets, an untied head, a sparse step for each stack.
    Fixture(
        "float16", seed=59, dtype=torch.float16, generations=["greedy", "beam", "beam-negative"],
        config=dict(
            vocab_size=64, d_model=24, d_kv=16, num_heads=1, d_ff=36, num_experts=4, num_layers=3, num_decoder_layers=2,
            encoder_sparse_step=1, decoder_sparse_step=2, expert_capacity=64, relative_attention_num_buckets=12,
            relative_attention_max_distance=40, tie_word_embeddings=False,
        ),
    ),
]


class Taps:
    """Records a model's routers and blocks while it runs."""

    def __init__(self, model):
        self.routers, self.states = {}, {}
        self.smallest_margin = float("inf")
        for stack_name, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
            for index, block in enumerate(stack.block):
                if index + 1 < len(stack.block):
                    block.register_forward_hook(self._block_hook(stack_name, index))
                if block.is_sparse:
                    block.layer[-1].mlp.router.register_forward_hook(self._router_hook(stack_name, index))

        model.decoder.final_layer_norm.register_forward_hook(self._decoder_hook)

    def _decoder_hook(self, _module, _inputs, output):
        self.states["decoder.final"] = output

    def _block_hook(self, stack, index):
        def hook(_module, _inputs, output):
            self.states[f"{stack}.block.{index}"] = output[0]

        return hook

    def _router_hook(self, stack, index):
        def hook(_module, _inputs, output):
            kept, weight, logits = output
            self.routers[stack, index] = (kept, weight, logits)
            self.smallest_margin = min(self.smallest_margin, top_margin(logits))

        return hook

    def reset_margin(self) -> None:
        self.smallest_margin = float("inf")


class ScoreNoise(transformers.LogitsProcessor):
    """Changes every score slightly, to show whether an answer depends on rounding."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids, scores):
        return scores + SCORE_NOISE * torch.randn(scores.shape, generator=self.generator)


def forward(model, taps, prompts, decoders, pad):
    """Runs the prompts as one right-padded batch; each row's results come back without its padding."""
    lengths, decoder_lengths = [len(p) for p in prompts], [len(d) for d in decoders]
    padded = lambda rows: torch.tensor([row + [pad] * (max(map(len, rows)) - len(row)) for row in rows])
    mask = torch.tensor([[1] * n + [0] * (max(lengths) - n) for n in lengths])
    encoder = model.encoder(input_ids=padded(prompts), attention_mask=mask)
    output = model(
        encoder_outputs=encoder, attention_mask=mask, decoder_input_ids=padded(decoders), use_cache=False
    )
    encoder = encoder.last_hidden_state
    rows = []
    for row, (length, decoder_length) in enumerate(zip(lengths, decoder_lengths)):
        tensors = {"encoder.final": encoder[row, :length], "logits": output.logits[row, :decoder_length]}
        for name, states in taps.states.items():
            tensors[name] = states[row, : length if name.startswith("encoder") else decoder_length]
        for (stack, block), (kept, weight, logits) in taps.routers.items():
            real = slice(length if stack == "encoder" else decoder_length)
            probabilities = torch.softmax(logits[row, real], dim=-1)
            prefix = f"{stack}.router.{block}"
            tensors[f"{prefix}.choice"] = probabilities.argmax(-1).to(torch.uint8)
            tensors[f"{prefix}.weight"] = weight[row, real, 0]
            tensors[f"{prefix}.dropped"] = (kept[row, real].sum(-1) == 0).to(torch.uint8)
        rows.append(tensors)
    return rows


def generate(model, prompt, parameters, noise=None):
    """The generated sequences of one prompt without the start token and without padding, and their scores."""
    output = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
        return_dict_in_generate=True, output_scores=True, output_logits=True,
        logits_processor=[ScoreNoise(noise)] if noise is not None else [],
        # generate() would make a cache with as many layers as the encoder, too few for a deeper decoder.
        past_key_values=transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache()),
        **parameters,
    )
    end = model.generation_config.eos_token_id
    results = []
    for row, sequence in enumerate(output.sequences.tolist()):
        ids = sequence[1:]
        result = {"ids": ids[: ids.index(end) + 1] if end in ids else ids}
        if getattr(output, "sequences_scores", None) is not None:
            result["score"] = round(float(output.sequences_scores[row]), 6)
        results.append(result)
    return results, output.logits


def choose_end_token(model, rng, specials) -> None:
    """Swaps the end token's embedding with one that greedy generation reaches in about half of its answers."""
    vocabulary = model.config.vocab_size
    prompts = [[rng.choice([i for i in range(vocabulary) if i not in specials]) for _ in range(8)] for _ in range(16)]
    answers = [
        set(generate(model, prompt, {"max_new_tokens": 16, "min_new_tokens": 16})[0][0]["ids"][2:])
        for prompt in prompts
    ]
    counts = collections.Counter(token for answer in answers for token in answer if token not in specials)
    token = min(counts, key=lambda t: (abs(counts[t] - 8), t))
    end = model.config.eos_token_id
    with torch.no_grad():
        embeddings = (model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens, model.lm_head)
        for weight in {id(module.weight): module.weight for module in embeddings}.values():
            weight[[end, token]] = weight[[token, end]].clone()


def collect(model, taps, fixture, rng, specials):
    """Draws prompts until each keeps its margins; returns the prompts, their tensors, and their generations."""
    config = model.config
    ordinary = [i for i in range(config.vocab_size) if i not in specials]
    prompts, decoders, rows, generations, cached = [], [], [], {name: [] for name in fixture.generations}, []
    for index, (length, decoder_length) in enumerate(zip(fixture.lengths, fixture.decoder_lengths)):
        for attempt in range(200):
            prompt = [rng.choice(ordinary) for _ in range(length)]
            if length > 1 and index % 2:
                prompt[-1] = config.eos_token_id
            decoder = [config.decoder_start_token_id] + [rng.choice(ordinary) for _ in range(decoder_length - 1)]
            taps.reset_margin()
            tensors = forward(model, taps, [prompt], [decoder], config.pad_token_id)[0]
            if taps.smallest_margin < ROUTER_MARGIN:
                continue
            taps.reset_margin()
            answers, logits = {}, {}
            for name in fixture.generations:
                parameters = GENERATIONS[name]
                answers[name], logits[name] = generate(model, prompt, parameters)
                ids = [answer["ids"] for answer in answers[name]]
                noisy = [[a["ids"] for a in generate(model, prompt, parameters, noise=n)[0]] for n in (1, 2)]
                if any(other != ids for other in noisy) or taps.smallest_margin < GENERATION_ROUTER_MARGIN:
                    break
            else:
                if top_margin(torch.cat(logits["greedy"])) >= TOKEN_MARGIN:
                    break
        else:
            raise SystemExit(f"{fixture.name}: no prompt of {length} tokens keeps its margins; choose another seed")
        prompts.append(prompt)
        decoders.append(decoder)
        rows.append(tensors)
        for name in fixture.generations:
            generations[name].append(answers[name])
        cached.append(torch.cat(logits["greedy"]))
    return prompts, decoders, rows, generations, cached


def check_worth(fixture, generations, rows) -> dict:
    """Stops if the random model would make a weak test; returns its statistics for the log."""
    greedy = [answer[0]["ids"] for answer in generations["greedy"]]
    finished = sum(len(ids) < GENERATIONS["greedy"]["max_new_tokens"] for ids in greedy)
    variety = sorted(len(set(ids)) / len(ids) for ids in greedy if len(ids) >= 8)
    distinct = len({token for ids in greedy for token in ids})
    drops = {
        stack: sum(int(t.sum()) for row in rows for name, t in row.items() if name.startswith(stack + ".router") and
                   name.endswith("dropped"))
        for stack in ("encoder", "decoder")
    }
    balance = {
        name: torch.bincount(
            torch.cat([row[name] for row in rows]).long(), minlength=fixture.config["num_experts"]
        ).tolist()
        for name in rows[0] if name.endswith("choice")
    }
    report = dict(finished=finished, of=len(greedy), variety=round(variety[len(variety) // 2], 2), distinct=distinct,
                  drops=drops, balance=balance)
    assert 3 <= finished <= len(greedy) - 3, report
    assert variety[len(variety) // 2] >= 0.4 and distinct >= 12, report
    assert all(sum(count > 0 for count in counts) >= 2 for counts in balance.values()), report
    assert (min(drops.values()) > 0) == fixture.expects_drops, report
    return report


def make(fixture: Fixture, folder: pathlib.Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    config = transformers.SwitchTransformersConfig(**{**COMMON, **fixture.config})
    torch.manual_seed(fixture.seed)
    rng = random.Random(fixture.seed)
    model = transformers.SwitchTransformersForConditionalGeneration(config).eval()
    randomize(model, fixture.seed)
    specials = {0, 1, 2, config.decoder_start_token_id, config.eos_token_id, config.pad_token_id}
    choose_end_token(model, rng, specials)
    model.to(fixture.dtype).save_pretrained(folder)

    # The goldens are what a reader of the file computes: stored in its dtype, summed in float32.
    model = transformers.SwitchTransformersForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    taps = Taps(model)
    for stack, step in ((model.encoder, config.encoder_sparse_step), (model.decoder, config.decoder_sparse_step)):
        sparse = [i for i, block in enumerate(stack.block) if block.is_sparse]
        assert sparse == [i for i in range(len(stack.block)) if step == 1 or i % step == 1], sparse

    prompts, decoders, rows, generations, cached = collect(model, taps, fixture, rng, specials)
    report = check_worth(fixture, generations, rows)

    detailed = set(fixture.detailed)
    tensors = {}
    for name in rows[0]:
        partial = ".block." in name or name == "decoder.final"
        parts = [row[name] for i, row in enumerate(rows) if not partial or i in detailed]
        tensors[name] = torch.cat(parts).contiguous()
    tensors["greedy.logits"] = torch.cat([cached[i] for i in fixture.detailed]).contiguous()
    for number, batch in enumerate(BATCHES):
        outputs = forward(model, taps, [prompts[i] for i in batch], [decoders[i] for i in batch], config.pad_token_id)
        for i, output in zip(batch, outputs):  # right padding must not change real tokens
            for name in ("encoder.final", "logits"):
                error = float((output[name] - rows[i][name]).norm() / rows[i][name].norm())
                assert error < 5e-6, (fixture.name, i, name, error)
        tensors[f"batch.{number}.encoder"] = torch.cat([o["encoder.final"] for o in outputs]).contiguous()
        tensors[f"batch.{number}.logits"] = torch.cat([o["logits"] for o in outputs]).contiguous()
    save_file(tensors, folder / "golden.safetensors")

    golden = {
        "transformers": TRANSFORMERS_VERSION,
        "torch": TORCH_VERSION,
        "prompts": [{"ids": p, "decoder": d} for p, d in zip(prompts, decoders)],
        "detailed": fixture.detailed,
        "batches": BATCHES,
        "generations": [
            {"name": name, "parameters": GENERATIONS[name], "results": results} for name, results in generations.items()
        ],
    }
    write_golden(folder, golden)
    print(fixture.name, json.dumps(report))


def write_golden(folder: pathlib.Path, golden: dict) -> None:
    """One line per entry of the long lists, so that a change of one golden changes one line."""
    dump = lambda value: json.dumps(value, separators=(",", ":"))
    parts = []
    for key, value in golden.items():
        if key == "generations":
            value = ",\n".join(
                f'{{"name":{dump(g["name"])},"parameters":{dump(g["parameters"])},"results":[\n'
                + ",\n".join(map(dump, g["results"])) + "]}" for g in value
            )
            parts.append(f'"{key}":[\n{value}]')
        elif key == "prompts":
            parts.append(f'"{key}":[\n' + ",\n".join(map(dump, value)) + "]")
        else:
            parts.append(f"{dump(key)}:{dump(value)}")
    (folder / "golden.json").write_text("{" + ",\n".join(parts) + "}\n")


# MARK: the same weights in other files


def load_all_names(folder: pathlib.Path) -> "collections.OrderedDict[str, torch.Tensor]":
    """A checkpoint's tensors under every name that a torch file of it would hold, in their stored dtype."""
    config = json.loads((folder / "config.json").read_text())
    dtype = getattr(torch, config["dtype"])
    model = transformers.SwitchTransformersForConditionalGeneration.from_pretrained(folder, dtype=dtype)
    return model.state_dict()


def begin_variant(source: pathlib.Path, folder: pathlib.Path) -> dict:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "golden.json").write_text(json.dumps({"sameAs": source.name}) + "\n")
    return json.loads((source / "config.json").read_text())


def check_variant(source: pathlib.Path, folder: pathlib.Path) -> None:
    load = transformers.SwitchTransformersForConditionalGeneration.from_pretrained
    one, other = (load(path, dtype=torch.float32).state_dict() for path in (source, folder))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one), folder
    print(folder.name, "holds the weights of", source.name)


def make_torch(source: pathlib.Path, folder: pathlib.Path) -> None:
    """pytorch_model.bin as early releases wrote it: every alias, mixed storages, two tensors in one storage, and a
    configuration that lacks what the hub's often lack and holds keys that mean nothing any more."""
    config = begin_variant(source, folder)
    state = load_all_names(source)
    for name in state:
        if "router.classifier" in name:
            state[name] = state[name].float()
    query, key = (f"encoder.block.0.layer.0.SelfAttention.{part}.weight" for part in "qk")
    joint = torch.cat([state[query], state[key]])
    state[query], state[key] = joint[: len(state[query])], joint[len(state[query]) :]
    torch.save(state, folder / "pytorch_model.bin")
    for absent in ("decoder_start_token_id", "tie_word_embeddings", "dtype"):
        config.pop(absent, None)
    config |= {
        "torch_dtype": "bfloat16", "router_type": "tokens_masked", "num_selected_experts": 1, "is_gated_act": False,
        "batch_prioritized_routing": False, "feed_forward_proj": "relu", "transformers_version": "4.25.1",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    check_variant(source, folder)


def make_sharded(source: pathlib.Path, folder: pathlib.Path, extension: str, count: int) -> None:
    """Several weight files and their index, each file holding every count-th tensor, tied copies included."""
    config = begin_variant(source, folder)
    state = {name: tensor.clone() for name, tensor in load_all_names(source).items()}
    stem = {"safetensors": "model", "bin": "pytorch_model"}[extension]
    index = {"metadata": {"total_size": sum(t.numel() * t.element_size() for t in state.values())}, "weight_map": {}}
    for shard in range(count):
        file = f"{stem}-{shard + 1:05}-of-{count:05}.{extension}"
        part = {name: tensor for i, (name, tensor) in enumerate(sorted(state.items())) if i % count == shard}
        index["weight_map"] |= {name: file for name in part}
        if extension == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file, metadata={"format": "pt"})
    (folder / f"{stem}.{extension}.index.json").write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    shutil.copy(source / "generation_config.json", folder)
    check_variant(source, folder)


VARIANTS = {
    "bfloat16-torch": ("bfloat16", make_torch),
    "capacity-sharded": ("capacity", lambda source, folder: make_sharded(source, folder, "safetensors", 3)),
    "step4-torch-sharded": ("step4", lambda source, folder: make_sharded(source, folder, "bin", 2)),
}


def main() -> None:
    require_pinned_versions()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="make only these")
    only = parser.parse_args().only
    root = pathlib.Path(__file__).parent / "parity"
    with torch.no_grad():
        for fixture in FIXTURES:
            if only is None or fixture.name in only:
                make(fixture, root / fixture.name)
        for name, (source, build) in VARIANTS.items():
            if only is None or name in only:
                build(root / source, root / name)
    total = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    print(f"{total / 1e6:.2f} MB in {root.name}/")


if __name__ == "__main__":
    main()
