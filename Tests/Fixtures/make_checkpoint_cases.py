# SPDX-License-Identifier: Apache-2.0
"""Makes the checkpoint cases: tiny checkpoints as people bring them, and what transformers answers with each.

    python make_checkpoint_cases.py [--only NAME ...]       writes cases/NAME beside this script

Needs transformers 5.23.0 and torch 2.13.0+cpu (`reference.py` says why), safetensors and sentencepiece 0.2. Each folder holds the files
of a checkpoint that differ from those of cases/plain, and case.json:

    {"about": ..., "without": [files of plain that this checkpoint lacks],
     "prompts": [[ids]], "answers": [{"request": {parameters}, "ids": [[ids]]}]}

or, for a checkpoint that must be refused, {"about": ..., "refused": [words that the error must have]}. Some of the
refused ones load in transformers, which draws the missing weights at random or leaves out what it does not know.
"overrides" are the values of config.json to override; what no configuration of transformers says is patched into its modules. An
encoder without a decoder has "hidden" in place of answers: a prompt and the states that the encoder gives.

A prompt is used only where float32, float64 and float32 with noise on the logits give the same ids, so that no answer
depends on a near tie; and settings of generation must change the answer to one prompt at least.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, SwitchTransformersConfig, SwitchTransformersEncoderModel
from transformers import SwitchTransformersForConditionalGeneration as Model
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP as SparseMLP

from reference import randomize, require_pinned_versions

HERE = pathlib.Path(__file__).parent / "cases"
SHAPE = dict(
    vocab_size=256, d_model=16, d_kv=8, num_heads=2, d_ff=24, num_experts=4, num_layers=2, num_decoder_layers=2,
    num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, expert_capacity=64, decoder_start_token_id=0,
    eos_token_id=1, pad_token_id=0, dropout_rate=0.0, router_jitter_noise=0.0,
)
PROMPTS = 4
WEIGHTS = "model.safetensors"


class Noise(transformers.LogitsProcessor):
    """Adds noise to the scores, far above rounding."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, ids, scores):
        return scores + 3e-4 * torch.randn(scores.shape, generator=self.generator).to(scores.dtype)


def make_plain(folder: pathlib.Path, **changes) -> None:
    """A checkpoint whose weights are exact in bfloat16, so that every stored type holds the same numbers."""
    model = Model(SwitchTransformersConfig(**{**SHAPE, **changes})).eval()
    randomize(model, seed=41)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    model.to(torch.bfloat16).save_pretrained(folder)


def make_tokenizer(folder: pathlib.Path) -> None:
    """156 pieces, so that with the 100 sentinels every id of the model has a text."""
    prompts = HERE.parents[2] / "deploy/models/switch-mini/prompts.json"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(entry["prompt"] for entry in json.loads(prompts.read_text())),
        model_writer=(writer := open(folder / "spiece.model", "wb")), vocab_size=156, model_type="unigram", pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
        normalization_rule_name="identity",
    )
    writer.close()


def edit(path: pathlib.Path, **changes) -> None:
    """Sets keys of a JSON file; a value of ... removes the key."""
    values = json.loads(path.read_text()) if path.exists() else {}
    for key, value in changes.items():
        if value is ...:
            values.pop(key, None)
        else:
            values[key] = value
    path.write_text(json.dumps(values, indent=2) + "\n")


def answer(model, prompt: list[int], request: dict, noise: int | None = None) -> list[int]:
    processors = transformers.LogitsProcessorList([] if noise is None else [Noise(noise)])
    with torch.no_grad():
        ids = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            logits_processor=processors, **request,
        )
    return ids[0].tolist()[1:]


def load(folder: pathlib.Path, dtype, patch):
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype).eval()
    for module in model.modules():
        if patch and isinstance(module, SparseMLP):
            patch(module)
    return model


def answers(folder: pathlib.Path, requests: list[dict], count: int = PROMPTS, patch=None) -> dict:
    """Draws prompts until enough of them have answers that do not depend on rounding."""
    single, double = load(folder, torch.float32, patch), load(folder, torch.float64, patch)
    draw = random.Random(5)
    prompts, all_ids = [], [[] for _ in requests]
    for attempt in range(400):
        prompt = [draw.randrange(6, 250) for _ in range(draw.choice([3, 6, 11, 17]))] + [1]
        ids = [answer(single, prompt, request) for request in requests]
        sound = all(
            answer(double, prompt, request) == found
            and all(answer(single, prompt, request, noise=seed) == found for seed in (1, 2))
            for request, found in zip(requests, ids)
        )
        if not sound:
            continue
        prompts.append(prompt)
        for collected, found in zip(all_ids, ids):
            collected.append(found)
        if len(prompts) == count:
            return dict(
                prompts=prompts, answers=[dict(request=request, ids=ids) for request, ids in zip(requests, all_ids)]
            )
    raise SystemExit(f"{folder.name}: too few prompts keep their answers")


CASES = {}
# Cases of settings that must show in the answers.
TELLING = set()
# Cases with overrides: the overrides, and a change of transformers' sparse layers.
OVERRIDES = {}


def case(about: str, name: str, change, requests: list[dict] | None = None, refused: list[str] | None = None):
    CASES[name] = (about, change, requests or [{}], refused)
    return name


def generation(name: str, about: str, requests: list[dict] | None = None, refused: list[str] | None = None, **keys):
    def change(folder):
        edit(folder / "generation_config.json", **keys)

    TELLING.add(case(about, name, change, requests, refused))


def configuration(name: str, about: str, **keys):
    case(about, name, lambda folder: edit(folder / "config.json", **keys))


def weights(name: str, about: str, refused: list[str] | None = None, **shape):
    """A case whose weights are made from plain's: the decorated function gets the folder and the tensors."""

    def register(function):
        def change(folder):
            if shape:
                make_plain(folder, **shape)
            function(folder, load_file(folder / WEIGHTS))

        case(about, name, change, None, refused)

    return register


def put(folder, tensors, metadata={"format": "pt"}):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS, metadata=metadata)


# Generation settings.
generation("no-repeat-ngram", "no pair of tokens twice", [{}, {"num_beams": 3}], no_repeat_ngram_size=2, max_new_tokens=16)
generation("forced-tokens", "the first and the last token are given", [{}, {"num_beams": 2}],
           forced_bos_token_id=77, forced_eos_token_id=1, max_new_tokens=8)
generation("temperature-zero", "sampling's settings are not read without sampling", temperature=0.0, top_p=0.0, top_k=0,
           do_sample=False)
generation("max-length", "lengths that count the start token", [{}, {"num_beams": 2}, {"max_new_tokens": 4}],
           max_length=12, min_length=6)
generation("sampling-default", "a model that samples, asked not to", [{"do_sample": False}, {"do_sample": False, "num_beams": 3}],
           do_sample=True, top_k=20, temperature=0.7, max_new_tokens=10)
generation("length-penalty", "beams by default, and a penalty of zero", [{}, {"length_penalty": 0.0}, {"num_beams": 1}],
           length_penalty=2.0, num_beams=4, max_new_tokens=12, early_stopping=True)
generation("encoder-side", "penalties that read the input", [{}, {"num_beams": 2}], encoder_no_repeat_ngram_size=2,
           encoder_repetition_penalty=1.5, repetition_penalty=1.2, max_new_tokens=10)
generation("length-decay", "the end token grows likelier", [{}, {"num_beams": 2}],
           exponential_decay_length_penalty=[4, 2.2], max_new_tokens=16)
generation("suppressed", "tokens that never come, or not at the start", [{}, {"num_beams": 2}],
           suppress_tokens=list(range(20, 120)), begin_suppress_tokens=list(range(120, 200)), max_new_tokens=10)
generation("bad-words", "sequences that never come", [{}, {"num_beams": 2}],
           bad_words_ids=[[token] for token in range(30, 60)] + [[100, 101], [150, 151, 152]], max_new_tokens=10)
generation("sequence-bias", "sequences made likelier or less likely", [{}, {"num_beams": 2}],
           sequence_bias=[[[40], -6.0], [[41], 2.5], [[90, 91], 4.0]], max_new_tokens=10)
generation("several-ends", "three tokens end a sequence", [{}, {"num_beams": 3}], eos_token_id=[1, 150, 215],
           min_new_tokens=3, max_new_tokens=20)
generation("renormalized", "scores are normalised again after processing", [{"num_beams": 3}], renormalize_logits=True,
           repetition_penalty=1.4, max_new_tokens=10)
generation("neutral-keys", "every key at the value that changes nothing", [{}, {"num_beams": 2}], no_repeat_ngram_size=0,
           encoder_no_repeat_ngram_size=0, repetition_penalty=1.0, encoder_repetition_penalty=1.0, bad_words_ids=None,
           suppress_tokens=None, begin_suppress_tokens=None, forced_bos_token_id=None, forced_eos_token_id=None,
           sequence_bias=None, exponential_decay_length_penalty=None, min_p=None, typical_p=1.0, epsilon_cutoff=0.0,
           eta_cutoff=0.0, top_k=50, top_p=1.0, temperature=1.0, num_beams=1, num_beam_groups=1, diversity_penalty=0.0,
           length_penalty=1.0, early_stopping=False, renormalize_logits=False, do_sample=False, use_cache=True,
           output_scores=False, output_attentions=False, return_dict_in_generate=False, num_return_sequences=1,
           max_time=None, guidance_scale=None, max_new_tokens=8)
generation("guidance", "classifier-free guidance", refused=["generation_config.json", "guidance_scale", "1.5"],
           guidance_scale=1.5)
generation("dola", "decoding by contrasting layers", refused=["generation_config.json", "dola_layers", "low"],
           dola_layers="low")
generation("made-up", "a key that no release knows", refused=["generation_config.json", "magic_penalty", "2"],
           magic_penalty=2)


def bos_start(folder):
    edit(folder / "config.json", decoder_start_token_id=..., bos_token_id=5)
    edit(folder / "generation_config.json", decoder_start_token_id=..., bos_token_id=5)


case("decoding starts with the beginning-of-sequence token where there is no start token", "bos-start", bos_start)


def old_style(folder):
    (folder / "generation_config.json").unlink()
    edit(folder / "config.json", max_length=12, num_beams=3, length_penalty=2.0, early_stopping=True, min_length=4,
         no_repeat_ngram_size=3, task_specific_params={"summarization": {"num_beams": 4, "prefix": "summarize: "}})


case("generation's settings in config.json, as transformers 4 wrote them", "settings-in-config", old_style)


def other_tokens(folder):
    edit(folder / "config.json", pad_token_id=3, decoder_start_token_id=3, eos_token_id=5)
    edit(folder / "generation_config.json", pad_token_id=3, decoder_start_token_id=3, eos_token_id=5)


case("padding, start and end are other tokens", "other-tokens", other_tokens, [{}, {"num_beams": 3}])


# Configuration.
def trainer_leftovers(folder):
    text = (folder / "config.json").read_text().rstrip().removesuffix("}").rstrip()
    (folder / "config.json").write_text(
        text + ',\n  "initial_loss": Infinity,\n  "last_grad_norm": NaN,\n  "lowest": -Infinity,\n'
        '  "quantization_config": null,\n  "torch_dtype": "bfloat16"\n}\n'
    )


case("numbers that are not JSON's, as Python writes them", "trainer-leftovers", trainer_leftovers)
configuration("gated-claim", "config.json speaks of gated networks that the weights are not", is_gated_act=True,
              feed_forward_proj="gated-gelu")
for activation in ["gelu", "gelu_new", "gelu_pytorch_tanh", "silu", "swish", "quick_gelu", "gelu_fast", "tanh", "relu6"]:
    configuration("activation-" + activation.replace("_", "-"), f"dense_act_fn {activation}", dense_act_fn=activation)


configuration("other-names", "the names that transformers takes besides its own", d_model=..., num_heads=..., num_layers=...,
              hidden_size=16, num_attention_heads=2, num_hidden_layers=2)
case("a configuration by which transformers would quantise the weights", "quantized",
     lambda folder: edit(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
     None, ["config.json", "quantization_config", "quant_method"])


# Weights.
@weights("unexpected-tensors", "a stray bias, position ids, a classification head")
def _(folder, tensors):
    tensors["encoder.block.0.layer.0.layer_norm.bias"] = torch.zeros(16)
    tensors["encoder.position_ids"] = torch.arange(32).unsqueeze(0)
    tensors["classification_head.dense.weight"] = torch.ones(4, 16)
    tensors["lm_head.bias"] = torch.ones(256)
    put(folder, tensors)


@weights("legacy-torch", "torch.save's format before the zip archives")
def _(folder, tensors):
    (folder / WEIGHTS).unlink()
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


@weights("float64", "weights in double precision")
def _(folder, tensors):
    put(folder, {name: tensor.double() for name, tensor in tensors.items()})


@weights("mixed-types", "three types in one file, and no metadata")
def _(folder, tensors):
    types = [torch.bfloat16, torch.float32, torch.float16]
    put(folder, {name: tensors[name].to(types[i % 3]) for i, name in enumerate(sorted(tensors))}, None)


@weights("stale-index", "two files; the index has wrong sizes, and one file a stale tensor")
def _(folder, tensors):
    names = sorted(tensors)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    first, second = ({name: tensors[name] for name in part} for part in (names[:20], names[20:]))
    mapping = {**{name: files[0] for name in first}, **{name: files[1] for name in second}}
    first[names[-1]] = torch.ones_like(tensors[names[-1]])
    first["old.adapter.weight"] = torch.zeros(3)
    save_file(first, folder / files[0], metadata={"format": "pt"})
    save_file(second, folder / files[1], metadata={"format": "pt"})
    (folder / WEIGHTS).unlink()
    index = {"metadata": {"total_size": 12345678901, "total_parameters": 7}, "weight_map": mapping}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


@weights("untied-without-shared", "an output projection of its own, and the embedding under one other name",
         tie_word_embeddings=False)
def _(folder, tensors):
    # transformers draws the encoder's embedding at random then. The answers are those of the same model saved in whole.
    shutil.copytree(folder, folder.parent / "reference")
    embedding = tensors.pop("shared.weight", None)
    for name in [name for name in tensors if name.endswith("encoder.embed_tokens.weight")]:
        embedding = tensors.pop(name)
    tensors["decoder.embed_tokens.weight"] = embedding
    put(folder, tensors)


@weights("head-copy", "a tied model whose file has the head too, in another type")
def _(folder, tensors):
    tensors["lm_head.weight"] = tensors["shared.weight"].float()
    put(folder, tensors)


@weights("module-prefix", "names with the prefix that data parallelism adds", refused=["module."])
def _(folder, tensors):
    (folder / WEIGHTS).unlink()
    torch.save({"module." + name: tensor for name, tensor in tensors.items()}, folder / "pytorch_model.bin")


@weights("training-state", "the weights inside of a trainer's state", refused=["pytorch_model.bin"])
def _(folder, tensors):
    (folder / WEIGHTS).unlink()
    torch.save({"epoch": 3, "model": tensors, "optimizer": {"state": {}}}, folder / "pytorch_model.bin")


@weights("wrong-vocabulary", "config.json has another vocab_size than the weights", refused=["shared.weight", "vocab_size"])
def _(folder, tensors):
    edit(folder / "config.json", vocab_size=254)


@weights("not-finite", "a weight that is not a number",
         refused=["encoder.block.0.layer.0.SelfAttention.q.weight", "nan"])
def _(folder, tensors):
    tensors["encoder.block.0.layer.0.SelfAttention.q.weight"][3, 2] = float("nan")
    put(folder, tensors)


def lfs_pointer(folder):
    (folder / WEIGHTS).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d" * 32 + "\nsize 2477410096\n"
    )


case("a pointer of Git LFS in place of the file", "lfs-pointer", lfs_pointer, None, [WEIGHTS, "Git LFS"])


def web_page(folder):
    (folder / WEIGHTS).write_text("<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n")


case("a web page in place of the file", "web-page", web_page, None, [WEIGHTS, "HTML"])


def adapter_beside(folder):
    draw = torch.Generator().manual_seed(3)
    tensors, adapter = load_file(folder / WEIGHTS), {}
    for name in tensors:
        if name.endswith((".q.weight", ".v.weight")):
            rows, columns = tensors[name].shape
            stem = "base_model.model." + name.removesuffix(".weight")
            adapter[stem + ".lora_A.weight"] = 0.3 * torch.randn(4, columns, generator=draw)
            adapter[stem + ".lora_B.weight"] = 0.3 * torch.randn(rows, 4, generator=draw)
    save_file(adapter, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = dict(peft_type="LORA", r=4, lora_alpha=8, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2))


case("an adapter that nobody asked to merge", "adapter-beside", adapter_beside, None, ["adapter_config.json"])


def own_head(folder):
    tensors = load_file(folder / WEIGHTS)
    draw = torch.Generator().manual_seed(11)
    tensors["lm_head.weight"] = torch.randn(tensors["shared.weight"].shape, generator=draw).bfloat16()
    put(folder, tensors)


case("a head of its own in a file whose configuration says tied", "own-head", own_head, None,
     ["lm_head.weight", "tie_word_embeddings=false", "scale_decoder_outputs=true"])
TELLING.add(case("the same, as transformers answers: the head is used, and the outputs are scaled", "own-scaled-head", own_head))
OVERRIDES["own-scaled-head"] = ({"tie_word_embeddings": "false", "scale_decoder_outputs": "true"}, None)


def without_scale(module):
    forward = module.router.forward

    def changed(hidden):
        index, probabilities, logits = forward(hidden)
        return index, torch.ones_like(probabilities), logits

    module.router.forward = changed


def passing_drops(module):
    forward, router = module.forward, module.router.forward

    def changed(hidden):
        index, probabilities, _ = router(hidden)
        return forward(hidden) + (1 - index.sum(-1, keepdim=True)) * probabilities * hidden

    module.forward = changed


def passing_drops_without_scale(module):
    without_scale(module)
    passing_drops(module)


def small_capacity(folder):
    edit(folder / "config.json", expert_capacity=1)


TELLING.add(case("experts' outputs are not multiplied by the probability", "unscaled-experts", lambda folder: None))
OVERRIDES["unscaled-experts"] = ({"is_scale_prob": "false"}, without_scale)
TELLING.add(case("tokens over capacity pass on their input", "passed-drops", small_capacity))
OVERRIDES["passed-drops"] = ({"dropped_tokens": "pass"}, passing_drops)
TELLING.add(case("the same without the probability", "passed-unscaled-drops", small_capacity))
OVERRIDES["passed-unscaled-drops"] = ({"dropped_tokens": "pass", "is_scale_prob": "false"}, passing_drops_without_scale)


def encoder_alone(folder):
    model = SwitchTransformersEncoderModel.from_pretrained(folder, dtype=torch.float32).eval()
    for file in ["model.safetensors", "config.json", "generation_config.json"]:
        (folder / file).unlink()
    model.to(torch.bfloat16).save_pretrained(folder)


case("SwitchTransformersEncoderModel, saved by itself", "encoder-alone", encoder_alone)


def hidden_states(folder: pathlib.Path) -> dict:
    model = SwitchTransformersEncoderModel.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = [17, 200, 33, 90, 91, 5, 120, 1]
    with torch.no_grad():
        states = model(input_ids=torch.tensor([prompt])).last_hidden_state[0]
    return dict(hidden=dict(prompt=prompt, states=[round(value, 6) for value in states.flatten().tolist()]))


def require_difference(name: str, text: dict) -> None:
    """Stops where the settings of a case change none of its answers."""
    plain = Model.from_pretrained(HERE / "plain", dtype=torch.float32).eval()
    for row in text["answers"]:
        if row["ids"] != [answer(plain, prompt, row["request"]) for prompt in text["prompts"]]:
            return
    raise SystemExit(f"{name}: the settings change no answer")


def write(name: str) -> None:
    about, change, requests, refused = CASES[name]
    target = HERE / name
    shutil.rmtree(target, ignore_errors=True)
    plain = HERE / "plain"
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / name
        shutil.copytree(plain, folder, ignore=shutil.ignore_patterns("case.json"))
        change(folder)
        text = dict(about=about)
        text["without"] = sorted(p.name for p in plain.iterdir() if p.name != "case.json" and not (folder / p.name).exists())
        reference = folder.parent / "reference"
        overrides, patch = OVERRIDES.get(name, ({}, None))
        if overrides:
            text["overrides"] = overrides
        if refused:
            text["refused"] = refused
        elif name == "encoder-alone":
            text.update(hidden_states(folder))
        else:
            text.update(answers(reference if reference.exists() else folder, requests, patch=patch))
        if name in TELLING - {"temperature-zero", "neutral-keys", "sampling-default"} and not refused:
            require_difference(name, text)
        target.mkdir(parents=True)
        for file in folder.iterdir():
            if not (plain / file.name).exists() or (plain / file.name).read_bytes() != file.read_bytes():
                shutil.copy(file, target)
        (target / "case.json").write_text(json.dumps(text) + "\n")
    print(name, "refused" if refused else [row["ids"][0][:6] for row in text.get("answers", [])], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(CASES), metavar="NAME", help="make these cases")
    names = parser.parse_args().only
    require_pinned_versions()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    if not names:
        shutil.rmtree(HERE, ignore_errors=True)
        (HERE / "plain").mkdir(parents=True)
        make_plain(HERE / "plain")
        make_tokenizer(HERE / "plain")
        text = dict(about="what the other cases differ from", without=[], **answers(HERE / "plain", [{}, {"num_beams": 3}]))
        (HERE / "plain" / "case.json").write_text(json.dumps(text) + "\n")
    for name in names or CASES:
        write(name)


if __name__ == "__main__":
    main()
