# SPDX-License-Identifier: Apache-2.0
"""Writes the files in this folder: small checkpoints as torch and safetensors themselves write them.

    python3 make_torch_files.py            (torch 2.13.0, safetensors 0.8.0; run in this folder)
"""
import json, os, pathlib, pickle, zipfile
import torch
from safetensors.torch import save_file

here = pathlib.Path(__file__).parent
generator = torch.Generator().manual_seed(7)

VOCAB, WIDTH, KEY, HEADS, INNER, EXPERTS = 24, 8, 4, 3, 16, 4
config = {
    "model_type": "switch_transformers", "vocab_size": VOCAB, "d_model": WIDTH, "d_kv": KEY, "d_ff": INNER, "num_heads": HEADS,
    "num_layers": 2, "num_decoder_layers": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1,
    "num_experts": EXPERTS, "relative_attention_num_buckets": 8, "eos_token_id": 1, "pad_token_id": 0,
}


def weight(*shape, dtype=torch.bfloat16):
    return torch.randn(*shape, generator=generator).to(dtype)


def attention(state, prefix):
    for name in "qkv":
        state[f"{prefix}.{name}.weight"] = weight(HEADS * KEY, WIDTH)
    state[f"{prefix}.o.weight"] = weight(WIDTH, HEADS * KEY)


state = {"shared.weight": weight(VOCAB, WIDTH)}
for stack in ("encoder", "decoder"):
    state[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = weight(8, HEADS)
    for block in range(2):
        base, last = f"{stack}.block.{block}.layer", 1 if stack == "encoder" else 2
        attention(state, f"{base}.0.SelfAttention")
        state[f"{base}.0.layer_norm.weight"] = weight(WIDTH)
        if stack == "decoder":
            attention(state, f"{base}.1.EncDecAttention")
            state[f"{base}.1.layer_norm.weight"] = weight(WIDTH)
        state[f"{base}.{last}.layer_norm.weight"] = weight(WIDTH)
        if block == 1:
            # The published base-8 has bfloat16 weights and float32 routers in one file.
            state[f"{base}.{last}.mlp.router.classifier.weight"] = weight(EXPERTS, WIDTH, dtype=torch.float32)
            for expert in range(EXPERTS):
                state[f"{base}.{last}.mlp.experts.expert_{expert}.wi.weight"] = weight(INNER, WIDTH)
                state[f"{base}.{last}.mlp.experts.expert_{expert}.wo.weight"] = weight(WIDTH, INNER)
        else:
            state[f"{base}.{last}.mlp.wi.weight"] = weight(INNER, WIDTH)
            state[f"{base}.{last}.mlp.wo.weight"] = weight(WIDTH, INNER)
    state[f"{stack}.final_layer_norm.weight"] = weight(WIDTH)

tied = dict(state)
for alias in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
    tied[alias] = state["shared.weight"]  # one storage, four names


def folder(name):
    path = here / name
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return path


save_file(state, folder("safetensors") / "model.safetensors", metadata={"format": "pt"})
torch.save(tied, folder("torch") / "pytorch_model.bin")

path = folder("torch-sharded")
names = list(tied)
weight_map = {}
for number, part in enumerate((names[::2], names[1::2]), start=1):
    file = f"pytorch_model-{number:05}-of-00002.bin"
    # Clones, as sharded files hold a copy of each tied tensor.
    torch.save({name: torch.nn.Parameter(tied[name].clone()) for name in part}, path / file, pickle_protocol=4)
    weight_map |= {name: file for name in part}
(path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1) + "\n")

base = torch.arange(24, dtype=torch.float32)
torch.save(
    {
        "contiguous": base.view(4, 6), "transposed": base.view(4, 6).t(), "slice": base.view(4, 6)[1:3, 2:5],
        "row": base.view(4, 6)[2], "expanded": base[5:6].expand(4), "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3),
        "half": base.half(), "double": base.double(), "long": base.long(), "int": base.int(), "short": base.short(),
        "char": base.to(torch.int8), "byte": base.to(torch.uint8), "bool": base > 11,
        "permuted": base.view(2, 3, 4).permute(2, 0, 1),
    },
    here / "views.bin",
)
torch.save({"legacy": base}, here / "legacy.bin", _use_new_zipfile_serialization=False)
torch.save({"weights": base, "step": 3}, here / "not-only-tensors.bin")
torch.save([base], here / "list.bin")


class Command:
    def __reduce__(self):
        return os.system, ("echo this must never run",)


torch.save({"shared.weight": Command()}, here / "command.bin")
torch.save(torch.nn.Linear(2, 2), here / "module.bin")

with zipfile.ZipFile(here / "views.bin") as source, zipfile.ZipFile(here / "compressed.bin", "w", zipfile.ZIP_DEFLATED) as target:
    for member in source.namelist():
        target.writestr(member, source.read(member))
