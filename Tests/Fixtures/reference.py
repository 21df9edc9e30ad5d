# SPDX-License-Identifier: Apache-2.0
"""What the fixture scripts share: the pinned reference and random weights that make a model worth comparing with.

The reference is Hugging Face transformers, used when fixtures are made and never afterwards. Only some of its releases
compute Switch Transformers as the paper defines them: 5.0 to 5.14 leave the relative position bias out of every layer
but the first, and 5.0 to 5.17 know no expert capacity. Goldens from those would be wrong, so the versions are pinned
and checked.
"""

import math

import torch
import transformers

TRANSFORMERS_VERSION = "5.23.0"
TORCH_VERSION = "2.13.0+cpu"


def require_pinned_versions() -> None:
    """Stops unless the installed reference is the pinned one."""
    major, minor = (int(part) for part in transformers.__version__.split(".")[:2])
    if major == 5 and minor <= 17:
        raise SystemExit(
            f"transformers {transformers.__version__} computes Switch Transformers wrongly (5.0 to 5.17 do: no expert "
            f"capacity, and up to 5.14 no position bias after the first layer); install transformers=={TRANSFORMERS_VERSION}"
        )
    if transformers.__version__ != TRANSFORMERS_VERSION:
        raise SystemExit(f"transformers is {transformers.__version__}; install transformers=={TRANSFORMERS_VERSION}")
    if torch.__version__ != TORCH_VERSION:
        raise SystemExit(f"torch is {torch.__version__}; install torch=={TORCH_VERSION}")


def randomize(model, seed: int, head_gain: float = 2.5) -> None:
    """Gives every parameter a random value at a scale at which each part of the model affects the answer.

    transformers' own initial values are no use here: attention is nearly uniform and every layer norm weight is one, so
    that a layer norm left out or a position bias missed would hardly show, and generation repeats one token for ever.
    Here attention is sharp, sublayers add as much as the embedding brings, norms differ by element, and logits spread.
    Half of the final norms' weights are negative and all embeddings equally long: with a tied head the token just
    generated, and a token with a long embedding, would else win every step.
    """
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    width, key, inner = config.d_model, config.d_kv, config.num_heads * config.d_kv
    deviations = {
        ".q.weight": 2.5 * width**-0.5 * key**-0.25,
        ".k.weight": 2.5 * width**-0.5 * key**-0.25,
        ".v.weight": width**-0.5,
        "SelfAttention.o.weight": 1.5 * inner**-0.5,
        "EncDecAttention.o.weight": inner**-0.5,
        "relative_attention_bias.weight": 2.0,
        "classifier.weight": 1.5 * width**-0.5,
        "classifier.bias": 0.5,
        ".wi.weight": 1.4 * width**-0.5,
        ".wi_0.weight": 1.4 * width**-0.5,
        ".wi_1.weight": 1.4 * width**-0.5,
        ".wo.weight": 2.0 * config.d_ff**-0.5,
    }
    head_norm = head_gain if config.tie_word_embeddings else 1.0
    lengths = {"shared.weight": width**0.5, "lm_head.weight": head_gain}

    with torch.no_grad():
        for name, parameter in model.named_parameters():  # each tied parameter once, in a fixed order
            if name.endswith("layer_norm.weight"):
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
                if name.endswith("final_layer_norm.weight"):
                    flipped = torch.randperm(width, generator=generator)[: width // 2]
                    parameter[flipped] *= -1
                    parameter.mul_(head_norm if name.startswith("decoder") else 1.0)
            elif name.endswith("embed_tokens.weight"):
                # An untied head unties these from `shared` too; in a trained checkpoint all three are the same.
                parameter.copy_(model.shared.weight)
            elif name in lengths:
                rows = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(rows * lengths[name] / rows.norm(dim=1, keepdim=True))
            else:
                deviation = next(value for ending, value in deviations.items() if name.endswith(ending))
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)


def top_margin(logits: torch.Tensor) -> float:
    """The smallest distance between a row's largest and second largest value."""
    two = logits.float().topk(2, dim=-1).values
    return float((two[..., 0] - two[..., 1]).min()) if two.numel() else math.inf
