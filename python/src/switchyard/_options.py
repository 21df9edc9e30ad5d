# SPDX-License-Identifier: Apache-2.0
"""What calls take as keyword arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Optional, Sequence, Tuple, TypedDict, Union

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from typing_extensions import Literal

    from switchyard._connection import Metadata
    from switchyard._results import Routes
    from switchyard._retry import RetryPolicy

#: An input: text, or token ids that are used as given, the end-of-sequence token included.
Input = Union[str, Sequence[int], "NDArray[numpy.integer[Any]]"]


class CallOptions(TypedDict, total=False):
    """What every call takes."""

    #: Seconds for the whole call, retries and waits included; None is unlimited. Left out, the client's own counts.
    timeout: Optional[float]
    #: When to send the call again; left out, the client's own policy counts.
    retry: RetryPolicy
    #: Key-value pairs sent with this call.
    metadata: Metadata


class RequestOptions(CallOptions, total=False):
    """What every call takes that runs the model."""

    #: How soon it gets batch slots, compared with the caller's other calls: low, normal or high.
    priority: Literal["low", "normal", "high"]
    #: Seconds to wait for batch slots; then the call ends with RESOURCE_EXHAUSTED. 0 is unlimited but for the timeout.
    queue_timeout: float
    #: Whether any token lost to a host fails the call.
    strict: bool
    #: The largest fraction of routed tokens that hosts may lose, to 1, which accepts any loss; 0 takes the gateway's.
    max_dropped_fraction: float
    #: Whether to return the way of every token through the sparse layers.
    return_routes: bool


class GenerationParameters(TypedDict, total=False):
    """How to choose tokens. Each means what transformers' ``generate()`` takes under that name.

    What is left out is the model's own setting, or else transformers' default. A zero, False or an empty list that is given is
    meant: it sets the model's own aside.
    """

    #: The most tokens to generate; the default is 20.
    max_new_tokens: int
    #: The fewest tokens to generate before the sequence may end.
    min_new_tokens: int
    #: The most tokens, the start token and a decoder prefix included; max_new_tokens wins.
    max_length: int
    #: The fewest tokens, the start token and a decoder prefix included; min_new_tokens wins.
    min_length: int
    #: The number of beams; 1 means greedy search, or sampling with do_sample.
    num_beams: int
    #: Groups of beams that search side by side; divides num_beams.
    num_beam_groups: int
    #: Taken from a token's score for each beam of an earlier group that has chosen it.
    diversity_penalty: float
    #: A sequence's score is divided by its length to this power.
    length_penalty: float
    #: When a beam search may stop.
    early_stopping: Union[bool, Literal["never"]]
    #: The number of sequences to return.
    num_return_sequences: int
    #: Whether to sample instead of taking the best token.
    do_sample: bool
    #: The divisor of logits before sampling.
    temperature: float
    #: Sample only from this many of the most likely tokens; 0 means from all.
    top_k: int
    #: Sample only from the most likely tokens that together have this probability.
    top_p: float
    #: Sample only from tokens that are at least this fraction as likely as the most likely one.
    min_p: float
    #: Sample only from the most typical tokens that together have this probability.
    typical_p: float
    #: Sample only from tokens of at least this probability.
    epsilon_cutoff: float
    #: Sample only from tokens above a probability that depends on this number and on the entropy.
    eta_cutoff: float
    #: The seed of sampling; left out, one is drawn, and the answer tells it.
    seed: int
    #: The divisor of the logits of tokens that have already appeared.
    repetition_penalty: float
    #: Favors the input's tokens if above 1.
    encoder_repetition_penalty: float
    #: No sequence of this many tokens occurs twice in an answer.
    no_repeat_ngram_size: int
    #: No sequence of this many tokens of the input occurs in an answer.
    encoder_no_repeat_ngram_size: int
    #: Token sequences that no answer holds.
    bad_words_ids: Sequence[Sequence[int]]
    #: Tokens that are never chosen.
    suppress_tokens: Sequence[int]
    #: Tokens that are not chosen first.
    begin_suppress_tokens: Sequence[int]
    #: The token that is chosen first.
    forced_bos_token_id: int
    #: The token, or the tokens one of which, is chosen last when the most tokens are reached.
    forced_eos_token_id: Union[int, Sequence[int]]
    #: What is added to the score of a token that would complete a token sequence.
    sequence_bias: Mapping[Tuple[int, ...], float]
    #: The number of tokens from which the score of the end grows, and the factor of each further token.
    exponential_decay_length_penalty: Tuple[int, float]
    #: Whether scores are made log-probabilities again after all that changes them.
    renormalize_logits: bool
    #: The tokens each of which ends a sequence.
    eos_token_id: Union[int, Sequence[int]]
    #: The token that every sequence starts from.
    decoder_start_token_id: int
    #: A text, or texts, that end a sequence once they appear in it.
    stop: Union[str, Sequence[str]]
    #: How many of the most likely tokens to return with each generated token.
    top_logprobs: int
    #: Whether to leave out scores and log-probabilities: greedy search is then faster.
    skip_scores: bool


class GenerateOptions(RequestOptions, GenerationParameters, total=False):
    """What ``generate`` and ``generate_stream`` take."""

    #: What every sequence begins with: text or token ids. Only what follows is generated and returned.
    decoder_prefix: Input
    #: Whether to return a receipt, with which ``switchyard verify`` computes the answer again.
    return_receipt: bool


class EncodeOptions(RequestOptions, total=False):
    """What ``encode`` and ``encode_many`` take."""

    #: "none" returns a row for each token, "mean" their mean, the end-of-sequence token included.
    pooling: Literal["none", "mean"]


class ScoreOptions(RequestOptions, total=False):
    """What ``score`` and ``score_many`` take."""

    #: How many of the most likely tokens to return with each token of the target.
    top_logprobs: int
    #: Whether to return the losses that routers are trained with.
    return_router_losses: bool
    #: Whether to return the scores of the whole vocabulary at each position.
    return_logits: bool


class EncodeRouting(TypedDict, total=False):
    """Ways that replace the routers' choices when an input is encoded."""

    #: The way through the encoder.
    encoder_routes: Routes


class ScoreRouting(EncodeRouting, total=False):
    """Ways that replace the routers' choices when a target is scored."""

    #: The way through the decoder: a generation's ``decoder_routes``, where the target is its ``token_ids``.
    decoder_routes: Routes


class EncodeOneOptions(EncodeOptions, EncodeRouting, total=False):
    """What ``encode`` takes."""


class ScoreOneOptions(ScoreOptions, ScoreRouting, total=False):
    """What ``score`` takes."""
