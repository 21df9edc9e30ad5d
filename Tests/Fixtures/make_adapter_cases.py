# SPDX-License-Identifier: Apache-2.0
"""Makes the adapter cases: LoRA adapters for a tiny checkpoint, and what transformers answers once peft has merged them.

    python make_adapter_cases.py [--only NAME ...]       writes adapters/NAME beside this script

Needs peft 0.21.2 besides what `make_checkpoint_cases.py` needs, whose cases/plain is the model. Each folder holds the
files of the model that differ from plain, the folder `adapter` as peft saves it, case.json as that script writes it, and
merged.safetensors: some of the tensors that merge_and_unload changes, in the model's type.

Where a tied output projection is trained as a copy of its own, peft's merge unties the two and no longer scales the
decoder's outputs; the answers are those of the adapter before that, and "overrides" says so.
"""

import argparse
import json
import pathlib
import shutil
import tempfile

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

from make_checkpoint_cases import HERE as CASES, WEIGHTS, answer, answers, edit, make_plain
from reference import require_pinned_versions

HERE = pathlib.Path(__file__).parent / "adapters"
PEFT_VERSION = "0.21.2"
# Small enough that a case stays small; one of each kind of tensor.
SHOWN = [
    "encoder.block.0.layer.0.SelfAttention.q.weight", "decoder.block.1.layer.1.EncDecAttention.v.weight",
    "encoder.block.0.layer.1.mlp.wi.weight", "decoder.block.1.layer.2.mlp.experts.expert_3.wo.weight",
    "encoder.block.1.layer.1.mlp.router.classifier.weight", "decoder.final_layer_norm.weight", "shared.weight",
    "lm_head.weight", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
]
LINEAR = ["q", "k", "v", "o", "wi", "wo", "classifier"]

ADAPTERS = {}


def adapter(name: str, about: str, dtype=torch.bfloat16, scale: float = 0.2, safe: bool = True, overrides=None, shape=None, dense=None,
            **settings):
    ADAPTERS[name] = (about, dtype, scale, safe, overrides or {}, shape or {}, dense, settings)


adapter("linear", "every linear layer, experts and router among them", target_modules=LINEAR, r=2, lora_alpha=3)
adapter("linear-float32", "the same in float32", dtype=torch.float32, target_modules=LINEAR, r=2, lora_alpha=3)
adapter("linear-float16", "the same in float16", dtype=torch.float16, target_modules=LINEAR, r=2, lora_alpha=3)
adapter("linear-float64", "the same in float64", dtype=torch.float64, target_modules=LINEAR, r=2, lora_alpha=3)
adapter("patterns", "ranks and scales by module, stabilised by rank, in a torch file", safe=False, target_modules=["q", "v", "wo"],
        r=3, lora_alpha=4, use_rslora=True,
        rank_pattern={r"encoder\.block\.\d+\.layer\.0\.SelfAttention\.q": 2, "decoder.block.1.layer.0.SelfAttention.v": 6},
        alpha_pattern={r"experts\.expert_[02]\.wo": 9, r"^encoder.*(q|v)": 2.5})
adapter("expression", "modules chosen by an expression", target_modules=r".*(SelfAttention|EncDecAttention)\.[qv]", r=2)
adapter("embedding", "the shared embedding, which is the output projection too", target_modules=["shared", "q"], r=4, scale=0.1)
adapter("embeddings", "the embeddings of both stacks, which are one tensor", target_modules=["embed_tokens"], r=2, scale=0.1)
adapter("position-bias", "relative position biases, which are embeddings", scale=0.6, target_modules=["relative_attention_bias"], r=2)
adapter("saved-modules", "norms and routers in full", target_modules=["q", "v"], r=2,
        modules_to_save=["final_layer_norm", "classifier"])
adapter("own-head", "the output projection of a model that has its own", target_modules=["lm_head", "v"], r=4,
        shape=dict(tie_word_embeddings=False))
adapter("saved-head", "a tied output projection, trained as a copy of its own", target_modules=["v"], r=2,
        modules_to_save=["lm_head"], overrides={"tie_word_embeddings": "false", "scale_decoder_outputs": "true"})
adapter("dense", "attention and gated feed-forwards of flan-t5, the kind of adapter that is published most", dense="flan-t5",
        dtype=torch.float32, target_modules=["q", "k", "v", "o", "wi_0", "wi_1", "wo"], r=4, lora_alpha=8)
adapter("dense-head", "the head of flan-t5", dense="flan-t5", dtype=torch.float32, target_modules=["q", "lm_head"], r=2)


def randomize(model, scale: float) -> None:
    draw = torch.Generator().manual_seed(17)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=draw)
                is_factor = "lora_" in name
                parameter.copy_(scale * noise if is_factor else parameter + scale * noise.to(parameter.dtype))


def write(name: str) -> None:
    about, dtype, scale, safe, overrides, shape, dense, settings = ADAPTERS[name]
    target = HERE / name
    shutil.rmtree(target, ignore_errors=True)
    plain = CASES / "plain"
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "model"
        shutil.copytree(plain, folder, ignore=shutil.ignore_patterns("case.json"))
        if shape:
            make_plain(folder, **shape)
        if dense:
            for file in (WEIGHTS, "config.json"):
                shutil.copy(CASES.parent / "dense" / dense / file, folder)
        if dtype != torch.bfloat16 or dense:
            tensors = load_file(folder / WEIGHTS)
            save_file({key: value.to(dtype) for key, value in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"})
            edit(folder / "config.json", dtype=str(dtype).removeprefix("torch."))

        trained = peft.get_peft_model(
            AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype), peft.LoraConfig(task_type="SEQ_2_SEQ_LM", **settings)
        )
        randomize(trained, scale)
        trained.save_pretrained(folder / "adapter", safe_serialization=safe)
        edit(folder / "adapter/adapter_config.json", base_model_name_or_path="tiny/plain")
        (folder / "adapter/README.md").unlink(missing_ok=True)

        merged = peft.PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype), folder / "adapter")
        merged = merged.merge_and_unload().eval()
        reference = pathlib.Path(scratch) / "merged"
        if overrides:
            shutil.copytree(folder, reference)
            state = merged.state_dict()
            kept = {key: state[key] for key in [*load_file(folder / WEIGHTS), "lm_head.weight"]}
            save_file(kept, reference / WEIGHTS, metadata={"format": "pt"})
        else:
            merged.save_pretrained(reference)
        tensors = load_file(reference / WEIGHTS)
        text = dict(about=about, without=[], overrides=overrides)
        text.update(answers(reference, [{}, {"num_beams": 3}], count=3))
        base = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
        if all(answer(base, prompt, {}) == ids for prompt, ids in zip(text["prompts"], text["answers"][0]["ids"])):
            raise SystemExit(f"{name}: the adapter changes no answer")

        target.mkdir(parents=True)
        shutil.copytree(folder / "adapter", target / "adapter")
        for file in folder.iterdir():
            if file.is_file() and (plain / file.name).read_bytes() != file.read_bytes():
                shutil.copy(file, target)
        before = load_file(folder / WEIGHTS)
        changed = [key for key in SHOWN if key in tensors and (key not in before or not before[key].equal(tensors[key]))]
        save_file({key: tensors[key] for key in changed}, target / "merged.safetensors")
        (target / "case.json").write_text(json.dumps(text) + "\n")
    print(name, [row["ids"][0][:6] for row in text["answers"]], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(ADAPTERS), metavar="NAME", help="make these cases")
    names = parser.parse_args().only
    require_pinned_versions()
    if peft.__version__ != PEFT_VERSION:
        raise SystemExit(f"peft is {peft.__version__}; install peft=={PEFT_VERSION}")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    if not names:
        shutil.rmtree(HERE, ignore_errors=True)
    for name in names or ADAPTERS:
        write(name)


if __name__ == "__main__":
    main()
