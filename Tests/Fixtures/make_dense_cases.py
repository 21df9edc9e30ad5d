# SPDX-License-Identifier: Apache-2.0
"""Makes the dense cases: tiny checkpoints in each layout of T5, and what transformers answers with each.

    python make_dense_cases.py [--only NAME ...]       writes dense/NAME beside this script

Needs transformers 5.23.0 and torch 2.13.0+cpu (`reference.py` says why) and safetensors. The configurations are written
as the published models have them, not as transformers would write them today; the answers are those of the folder that
was written, read by from_pretrained. Each folder holds the files of a checkpoint, or those that differ from the files
of its base, and case.json:

    {"about": ..., "base": folder, "without": [files of the base that this checkpoint lacks], "overrides": {key: value},
     "prompts": [[ids]], "greedy": [[ids]], "beams": [[ids]], "scores": [of the best beam]}

A checkpoint that must be refused has "refused", the words that the error must have, in place of answers; an encoder has
"hidden", a prompt and the states that it gives; the Switch model with gated experts has "logits", those of the first step.

A prompt is used only where float32, float64 and float32 with noise on the logits give the same ids. The two models are
loaded with different seeds, so that a weight which transformers draws at random never gets into an answer.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import MT5Config, MT5ForConditionalGeneration, SwitchTransformersConfig
from transformers import SwitchTransformersForConditionalGeneration, T5Config, T5EncoderModel, T5ForConditionalGeneration
from transformers.activations import ACT2FN
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersDenseActDense

from reference import randomize, require_pinned_versions

HERE = pathlib.Path(__file__).parent / "dense"
WEIGHTS, TORCH_WEIGHTS = "model.safetensors", "pytorch_model.bin"
SHARED, HEAD = "shared.weight", "lm_head.weight"
COPIES = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
STRAY = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
BEAMS, NEW_TOKENS, LONGEST = 4, 12, 40
HEAD_GAIN = 2.5

# What the published configurations share.
COMMON = dict(
    decoder_start_token_id=0, dropout_rate=0.1, eos_token_id=1, initializer_factor=1.0, is_encoder_decoder=True,
    layer_norm_epsilon=1e-06, model_type="t5", pad_token_id=0, relative_attention_num_buckets=32, vocab_size=256,
    architectures=["T5ForConditionalGeneration"],
)
T5 = dict(
    COMMON, d_model=16, d_kv=8, d_ff=32, num_heads=2, num_layers=2, n_positions=512, output_past=True,
    task_specific_params={
        "summarization": {"early_stopping": True, "length_penalty": 2.0, "max_length": 200, "min_length": 30,
                          "no_repeat_ngram_size": 3, "num_beams": 4, "prefix": "summarize: "},
        "translation_en_to_de": {"early_stopping": True, "max_length": 300, "num_beams": 4,
                                 "prefix": "translate English to German: "},
    },
)
# The heads together are wider than d_model, and the stacks differ in depth.
V1_1 = dict(
    COMMON, d_model=16, d_kv=8, d_ff=24, num_heads=3, num_layers=3, num_decoder_layers=2, output_past=True,
    feed_forward_proj="gated-gelu", tie_word_embeddings=False,
)
FLAN = dict(
    T5, d_model=24, d_kv=8, d_ff=20, num_heads=2, num_decoder_layers=2, feed_forward_proj="gated-gelu",
    tie_word_embeddings=False, relative_attention_max_distance=24, relative_attention_num_buckets=12, use_cache=True,
    transformers_version="4.23.1",
)
MONO = dict(
    T5, num_decoder_layers=2, feed_forward_proj="relu", gradient_checkpointing=False, transformers_version="4.6.0",
    use_cache=True, _name_or_path="t5-base",
)
MADLAD = dict(
    COMMON, d_model=16, d_kv=12, d_ff=28, num_heads=2, num_layers=3, num_decoder_layers=2, eos_token_id=2, pad_token_id=1,
    feed_forward_proj="gated-gelu", dense_act_fn="gelu_new", is_gated_act=True, tie_word_embeddings=False,
    n_positions=512, output_past=True, relative_attention_max_distance=128, torch_dtype="float32", use_cache=True,
    transformers_version="4.23.1",
)
MT5 = dict(
    COMMON, d_model=16, d_kv=8, d_ff=24, num_heads=2, num_layers=2, num_decoder_layers=2, model_type="mt5",
    architectures=["MT5ForConditionalGeneration"], feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    tokenizer_class="T5Tokenizer",
)
XXL = dict(
    d_model=16, d_kv=8, d_ff=24, num_heads=2, num_layers=2, num_decoder_layers=2, num_experts=4, vocab_size=256,
    num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, expert_capacity=64, decoder_start_token_id=0,
    eos_token_id=1, pad_token_id=0, router_jitter_noise=0.0, tie_word_embeddings=False, dense_act_fn="gelu_new",
)
# As its published configuration: other layers than the weights, not gated, another activation, a tied head.
XXL_PUBLISHED = dict(
    {key: value for key, value in XXL.items() if key != "tie_word_embeddings"}, model_type="switch_transformers",
    architectures=["SwitchTransformersForConditionalGeneration"], num_layers=4, num_decoder_layers=1,
    num_sparse_encoder_layers=2, encoder_sparse_step=2, decoder_sparse_step=1, dense_act_fn="gelu",
    feed_forward_proj="gelu", is_gated_act=False, is_encoder_decoder=True, relative_attention_num_buckets=32,
    relative_attention_max_distance=128, layer_norm_epsilon=1e-06,
)


class Noise(transformers.LogitsProcessor):
    """Adds noise to the scores, far above rounding."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, ids, scores):
        return scores + 3e-4 * torch.randn(scores.shape, generator=self.generator).to(scores.dtype)


def draw_weights(configuration: dict, seed: int, own_head: bool) -> dict:
    """Random weights under the names of a plain T5, exact in bfloat16; the end token is likelier than others."""
    known = {key: value for key, value in configuration.items() if key not in ("model_type", "tie_word_embeddings")}
    model = (MT5ForConditionalGeneration if configuration["model_type"] == "mt5" else T5ForConditionalGeneration)(
        (MT5Config if configuration["model_type"] == "mt5" else T5Config)(**known)
    )
    randomize(model, seed=seed, head_gain=HEAD_GAIN)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name not in [HEAD, *COPIES]}
    end = configuration["eos_token_id"]
    if own_head:
        tensors[HEAD] = draw_head(tensors[SHARED].shape, seed, HEAD_GAIN)
        tensors[HEAD][end] *= 1.5
        tensors["decoder.final_layer_norm.weight"] /= HEAD_GAIN
    tensors[SHARED][end] *= 1.5
    return {name: tensor.bfloat16() for name, tensor in tensors.items()}


def draw_head(shape, seed: int, length: float) -> torch.Tensor:
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1000))
    return rows * length / rows.norm(dim=1, keepdim=True)


def put(folder: pathlib.Path, tensors: dict, configuration: dict | None = None) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    if configuration:
        put_json(folder / "config.json", configuration)


def put_json(path: pathlib.Path, values: dict) -> None:
    path.write_text(json.dumps(dict(sorted(values.items())), indent=2) + "\n")


def edit(path: pathlib.Path, **changes) -> None:
    """Sets keys of a JSON file; a value of ... removes the key."""
    values = json.loads(path.read_text())
    values.update(changes)
    put_json(path, {key: value for key, value in values.items() if value is not ...})


class Case:
    """How to make one checkpoint, and what is asked of it."""

    def __init__(self, about, make, base=None, refused=None, overrides=None, prompts=8, kind=T5ForConditionalGeneration):
        self.about, self.make, self.base, self.refused = about, make, base, refused
        self.overrides, self.prompts, self.kind = overrides, prompts, kind


CASES: dict[str, Case] = {}


def case(name: str, about: str, **options):
    """Registers the decorated function, which changes the folder of a checkpoint."""

    def register(make):
        CASES[name] = Case(about, make, **options)
        return make

    return register


def configured(name: str, about: str, base: str, refused=None, kind=T5ForConditionalGeneration, **keys):
    """A case whose config.json alone differs from its base's."""

    def make(folder):
        edit(folder / "config.json", **keys)
        for key in {"decoder_start_token_id", "bos_token_id"} & keys.keys():
            if (folder / "generation_config.json").exists():
                edit(folder / "generation_config.json", **{key: keys[key]})

    CASES[name] = Case(about, make, base=base, refused=refused, kind=kind)


MAIN = dict(prompts=200)


@case("t5", "t5-small's layout: relu, the embedding as a head, and a tensor that nothing reads", **MAIN)
def _(folder):
    tensors = draw_weights(T5, 52, own_head=False)
    tensors[STRAY] = torch.ones(32, 2, dtype=torch.bfloat16)
    put(folder, tensors, T5)
    put_json(folder / "generation_config.json", {"_from_model_config": True, "decoder_start_token_id": 0,
             "eos_token_id": 1, "pad_token_id": 0, "transformers_version": "4.27.0.dev0"})


@case("t5-v1_1", "t5-v1_1's layout: gated-gelu and a head of its own", **MAIN)
def _(folder):
    tensors = draw_weights(V1_1, 2, own_head=True)
    tensors[STRAY] = torch.ones(32, 3, dtype=torch.bfloat16)
    put(folder, tensors, V1_1)


@case("flan-t5", "flan-t5's layout, as published with transformers 4", **MAIN)
def _(folder):
    put(folder, draw_weights(FLAN, 3, own_head=True), FLAN)
    put_json(folder / "generation_config.json", {"_from_model_config": True, "decoder_start_token_id": 0,
             "eos_token_id": 1, "pad_token_id": 0, "transformers_version": "4.27.0.dev0"})


@case("flan-t5-saved-again", "flan-t5 loaded and saved by transformers 5: config.json says tied, the file has the head",
      base="flan-t5", prompts=40)
def _(folder):
    model = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder)


@case("monot5", "monoT5's layout: pytorch_model.bin with copies of the embedding", **MAIN)
def _(folder):
    tensors = draw_weights(MONO, 44, own_head=False)
    tensors.update({name: tensors[SHARED] for name in [*COPIES, HEAD]})
    torch.save(tensors, folder / TORCH_WEIGHTS)
    put_json(folder / "config.json", MONO)


@case("madlad", "madlad400's layout: the decoder's embedding serves both stacks, other special tokens", **MAIN)
def _(folder):
    tensors = draw_weights(MADLAD, 25, own_head=True)
    tensors["decoder.embed_tokens.weight"] = tensors.pop(SHARED)
    put(folder, tensors, MADLAD)


@case("mt5", "mt5's layout, as published with transformers 4", kind=MT5ForConditionalGeneration, **MAIN)
def _(folder):
    put(folder, draw_weights(MT5, 33, own_head=True), MT5)


# Configurations.
configured("decoder-layers-null", "num_decoder_layers null: as many as the encoder has", "t5", num_decoder_layers=None)
configured("gated-relu", "dense_act_fn contradicts feed_forward_proj", "t5-v1_1", dense_act_fn="relu", is_gated_act=True)
configured("gated-by-key", "is_gated_act contradicts feed_forward_proj", "t5-v1_1", feed_forward_proj="relu",
           dense_act_fn="gelu_new", is_gated_act=True)
configured("gated-silu", "feed_forward_proj gated-silu", "t5-v1_1", feed_forward_proj="gated-silu")
configured("gelu", "feed_forward_proj gelu, not gated", "t5", feed_forward_proj="gelu")
configured("unscaled-embedding", "no head, and tie_word_embeddings false: the embedding unscaled", "t5",
           tie_word_embeddings=False)
configured("tied", "tie_word_embeddings true said", "t5", tie_word_embeddings=True)
configured("scale-said-false", "scale_decoder_outputs false beats a tied configuration", "t5", scale_decoder_outputs=False)
configured("scale-said-null", "scale_decoder_outputs null is false", "t5", scale_decoder_outputs=None)
configured("scale-said-true", "scale_decoder_outputs true beats an untied configuration", "t5-v1_1",
           scale_decoder_outputs=True)
configured("mt5-tied", "mt5 never scales", "mt5", kind=MT5ForConditionalGeneration, tie_word_embeddings=True,
           scale_decoder_outputs=True)
configured("start-from-bos", "t5 begins with the beginning-of-sequence token where no start token is said", "t5",
           decoder_start_token_id=..., bos_token_id=5)
configured("without-start", "t5 without any token to begin with", "t5", refused=["decoder_start_token_id"],
           decoder_start_token_id=...)
configured("mt5-without-start", "mt5 likewise, though its class has a default", "mt5", refused=["decoder_start_token_id"],
           kind=MT5ForConditionalGeneration, decoder_start_token_id=...)
configured("gated-claim", "gated by the configuration, not by the weights", "t5", refused=["wi_0"],
           feed_forward_proj="gated-gelu")
configured("umt5", "another family", "mt5", refused=["model_type", "umt5"], model_type="umt5",
           architectures=["UMT5ForConditionalGeneration"])


# Weights.
@case("own-scaled-head", "a head of its own in a file whose configuration says nothing: scaled", base="t5")
def _(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors[HEAD] = draw_head(tensors[SHARED].shape, 7, 16**0.5).bfloat16()
    put(folder, tensors)


@case("mt5-without-head", "mt5 without a head: the embedding unscaled", base="mt5", kind=MT5ForConditionalGeneration)
def _(folder):
    tensors = load_file(folder / WEIGHTS)
    del tensors[HEAD]
    put(folder, tensors)


@case("encoder-embedding", "the encoder's embedding alone", base="t5")
def _(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors["encoder.embed_tokens.weight"] = tensors.pop(SHARED)
    put(folder, tensors)


def rounded(name: str, dtype: torch.dtype) -> None:
    @case(name, f"weights of more digits in {name}", base="t5-v1_1")
    def _(folder):
        draw = torch.Generator().manual_seed(8)
        tensors = load_file(folder / WEIGHTS)
        put(folder, {name: (tensor.float() * (1 + 0.02 * torch.randn(tensor.shape, generator=draw))).to(dtype)
                     for name, tensor in tensors.items()})


rounded("bfloat16", torch.bfloat16)
rounded("float16", torch.float16)
rounded("float32", torch.float32)


@case("encoder-alone", "T5EncoderModel, saved by itself", base="t5-v1_1", kind=T5EncoderModel)
def _(folder):
    model = T5EncoderModel.from_pretrained(folder, dtype=torch.bfloat16)
    shutil.rmtree(folder)
    model.save_pretrained(folder)


class Gated(torch.nn.Module):
    """The gated network of T5 v1.1, which Switch has in transformers for no release."""

    def __init__(self, config):
        super().__init__()
        self.wi_0 = torch.nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wi_1 = torch.nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = torch.nn.Linear(config.d_ff, config.d_model, bias=False)
        self.act = ACT2FN[config.dense_act_fn]

    def forward(self, hidden):
        return self.wo(self.act(self.wi_0(hidden)) * self.wi_1(hidden))


def gated_switch() -> SwitchTransformersForConditionalGeneration:
    """A Switch model with gated networks everywhere, in dense layers and in experts."""
    config = SwitchTransformersConfig(**XXL)
    model = SwitchTransformersForConditionalGeneration(config)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, SwitchTransformersDenseActDense):
                setattr(module, name, Gated(config))
    randomize(model, seed=9, head_gain=HEAD_GAIN)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    return model.eval()


@case("switch-xxl", "switch-xxl-128's layout: gated experts, and a configuration that overrides must correct", prompts=12,
      overrides=dict(num_layers="2", num_decoder_layers="2", encoder_sparse_step="2", decoder_sparse_step="2",
                     tie_word_embeddings="false", dense_act_fn="gelu_new", is_gated_act="true"),
      kind=SwitchTransformersForConditionalGeneration)
def _(folder):
    tensors = {name: tensor.bfloat16() for name, tensor in gated_switch().state_dict().items() if name not in COPIES}
    tensors["decoder." + HEAD] = tensors.pop(HEAD)
    put(folder, tensors, XXL_PUBLISHED)


def load(case: Case, folder: pathlib.Path, dtype: torch.dtype):
    torch.manual_seed(1 if dtype == torch.float32 else 2)
    if case.kind is SwitchTransformersForConditionalGeneration:
        return gated_switch().to(dtype)
    return case.kind.from_pretrained(folder, dtype=dtype).eval()


def generate(model, prompts: list[list[int]], end: int, beams: int, noise: int | None = None):
    """The ids after the start token, the end token included, and the best beams' scores."""
    processors = transformers.LogitsProcessorList([] if noise is None else [Noise(noise)])
    ids = torch.tensor(prompts)
    with torch.no_grad():
        result = model.generate(
            ids, attention_mask=torch.ones_like(ids), num_beams=beams, max_new_tokens=NEW_TOKENS, do_sample=False,
            logits_processor=processors, return_dict_in_generate=True, output_scores=beams > 1,
        )
    rows = [row[1:] for row in result.sequences.tolist()]
    rows = [row[: row.index(end) + 1] if end in row else row for row in rows]
    return rows, result.sequences_scores.tolist() if beams > 1 else None


def sound_answers(single, double, prompts: list[list[int]], end: int) -> list[dict]:
    """The answers to those prompts whose answers do not depend on rounding."""
    greedy, _ = generate(single, prompts, end, 1)
    beams, scores = generate(single, prompts, end, BEAMS)
    others = [(double, None), (single, 1), (single, 2)]
    other_greedy = [generate(model, prompts, end, 1, noise)[0] for model, noise in others]
    other_beams = [generate(model, prompts, end, BEAMS, noise) for model, noise in others]
    return [
        dict(prompts=prompt, greedy=greedy[i], beams=beams[i], scores=round(other_beams[0][1][i], 6))
        for i, prompt in enumerate(prompts)
        if all(found[i] == greedy[i] for found in other_greedy) and all(found[0][i] == beams[i] for found in other_beams)
        and abs(other_beams[0][1][i] - scores[i]) < 2e-5
    ]


def answers(case: Case, folder: pathlib.Path) -> dict:
    """Draws prompts of all lengths until enough of them have sound answers."""
    single, double = load(case, folder, torch.float32), load(case, folder, torch.float64)
    end, draw = single.config.eos_token_id, random.Random(5)
    lengths = range(1, LONGEST + 1) if case.prompts >= LONGEST else [1, 2, 5, 9, 17, 26, 33, LONGEST]
    chosen = []
    for index, length in enumerate(lengths):
        wanted = case.prompts * (index + 1) // len(lengths) - len(chosen)
        found = []
        for _ in range(20):
            # One length at a time, so that no padding gets into the reference.
            prompts = [[draw.randrange(3, 250) for _ in range(length)] + [end] for _ in range(wanted + 2)]
            found += sound_answers(single, double, prompts, end)
            if len(found) >= wanted:
                break
        else:
            raise SystemExit(f"{folder.name}: too few prompts of {length} tokens keep their answers")
        chosen += found[:wanted]
    return {key: [answer[key] for answer in chosen] for key in chosen[0]}


def hidden_states(case: Case, folder: pathlib.Path) -> dict:
    model = load(case, folder, torch.float32)
    prompt = [17, 200, 33, 90, 91, 5, 120, 1]
    with torch.no_grad():
        states = model(input_ids=torch.tensor([prompt])).last_hidden_state[0]
    return dict(hidden=dict(prompt=prompt, states=[round(value, 6) for value in states.flatten().tolist()]))


def first_logits(case: Case, folder: pathlib.Path, prompts: list[list[int]]) -> list[list[float]]:
    model = load(case, folder, torch.float64)
    with torch.no_grad():
        rows = [model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[0]])).logits[0, 0] for prompt in prompts]
    return [[round(value, 5) for value in row.tolist()] for row in rows]


def describe(name: str, folder: pathlib.Path) -> dict:
    case = CASES[name]
    text = dict(about=case.about)
    if case.base:
        text["base"] = case.base
        kept = {path.name for path in folder.iterdir()}
        text["without"] = sorted(p.name for p in (HERE / case.base).iterdir() if p.name not in kept | {"case.json"})
    if case.overrides:
        text["overrides"] = case.overrides
    if case.refused:
        text["refused"] = case.refused
    elif case.kind is T5EncoderModel:
        text.update(hidden_states(case, folder))
    else:
        text.update(answers(case, folder))
    if name == "switch-xxl":
        text["logits"] = first_logits(case, folder, text["prompts"])
    return text


def write(name: str) -> None:
    case, target = CASES[name], HERE / name
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / name
        folder.mkdir()
        base = HERE / case.base if case.base else folder
        if case.base:
            shutil.copytree(base, folder, ignore=shutil.ignore_patterns("case.json"), dirs_exist_ok=True)
        case.make(folder)
        text = describe(name, folder)
        target.mkdir(parents=True)
        for file in folder.iterdir():
            if not case.base or not (base / file.name).exists() or (base / file.name).read_bytes() != file.read_bytes():
                shutil.copy(file, target)
        (target / "case.json").write_text(json.dumps(text, separators=(",", ":")) + "\n")
    ends = sum(len(row) < NEW_TOKENS for row in text.get("greedy", []))
    kinds = len({tuple(row) for row in text.get("greedy", [])})
    print(f"{name}: {len(text.get('prompts', []))} prompts, {kinds} answers, {ends} ended", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), metavar="NAME", help="make these cases")
    names = parser.parse_args().only
    require_pinned_versions()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    if not names:
        shutil.rmtree(HERE, ignore_errors=True)
    for name in names or CASES:
        write(name)


if __name__ == "__main__":
    main()
