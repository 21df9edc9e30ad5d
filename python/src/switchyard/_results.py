# SPDX-License-Identifier: Apache-2.0
"""What calls return."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy
from numpy.typing import NDArray

from switchyard import _text
from switchyard._enums import DropReason, FinishReason, Stack, member, number
from switchyard._errors import InternalError
from switchyard.v1 import gateway_pb2, types_pb2


@dataclass(frozen=True)
class TokenCandidate:
    """One of the most likely tokens at a position."""

    token_id: int
    #: The natural logarithm of its probability.
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """A token and how likely it was."""

    token_id: int
    #: The natural logarithm of its probability.
    logprob: float
    #: The most likely tokens at this position, best first, if they were asked for.
    top: Tuple[TokenCandidate, ...] = ()

    @staticmethod
    def of(message: gateway_pb2.TokenLogprob) -> TokenLogprob:
        """Reads a message."""
        top = tuple(TokenCandidate(candidate.token_id, candidate.logprob) for candidate in message.top)
        return TokenLogprob(message.token_id, message.logprob, top)


@dataclass(frozen=True)
class DroppedTokens:
    """Tokens that went on without an expert's output, by place and reason."""

    stack: Stack
    #: The index of the block that holds the sparse layer.
    layer: int
    reason: DropReason
    #: How many: each token counts once per sparse layer and step.
    tokens: int

    @staticmethod
    def of(message: types_pb2.DroppedTokens) -> DroppedTokens:
        """Reads a message."""
        reason = member(DropReason, message.reason)
        return DroppedTokens(member(Stack, message.stack), message.layer, reason, message.tokens)


@dataclass(frozen=True)
class Usage:
    """What a call cost."""

    #: Tokens given to the encoder, the end-of-sequence token included.
    input_tokens: int
    #: Tokens that came out, over all sequences; for a score, the target's.
    output_tokens: int
    #: Tokens without an expert's output.
    dropped: Tuple[DroppedTokens, ...]
    #: Routed tokens, counted once per sparse layer: the denominator of a dropped fraction.
    routed_tokens: int
    #: Seconds between admission and the first step.
    queue_seconds: float
    #: Seconds in the encoder.
    encode_seconds: float
    #: Seconds in the decoder.
    decode_seconds: float
    #: The checkpoint that answered, sixteen hexadecimal digits: one for the whole answer, also while a gateway changes
    #: checkpoints.
    model_fingerprint: str = ""

    @staticmethod
    def of(message: types_pb2.Usage) -> Usage:
        """Reads a message."""
        return Usage(
            input_tokens=message.input_tokens,
            output_tokens=message.output_tokens,
            dropped=tuple(DroppedTokens.of(dropped) for dropped in message.dropped),
            routed_tokens=message.routed_tokens,
            queue_seconds=message.queue_microseconds / 1e6,
            encode_seconds=message.encode_microseconds / 1e6,
            decode_seconds=message.decode_microseconds / 1e6,
            model_fingerprint=f"{message.model_fingerprint:016x}",
        )


@dataclass(frozen=True, eq=False)
class Routes:
    """The way of one sequence's tokens through the sparse layers of one stack."""

    stack: Stack
    #: The indices of the blocks that hold the sparse layers, ascending.
    layers: Tuple[int, ...]
    #: The expert that each token was sent to, dropped or not: uint16, ``[tokens, layers]``.
    experts: NDArray[numpy.uint16]
    #: The router's probability of that expert: float32, ``[tokens, layers]``; None if it is left out.
    probabilities: Optional[NDArray[numpy.float32]]
    #: A number of the protocol's DropReason, 0 where the expert answered: uint8, ``[tokens, layers]``.
    drop_reasons: NDArray[numpy.uint8]

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return int(self.experts.shape[0])

    @staticmethod
    def of(message: gateway_pb2.Routes) -> Routes:
        """Reads a message.

        :raises InternalError: If its arrays do not have an entry for each token at each layer.
        """
        shape = (message.tokens, len(message.layers))

        def array(data: bytes, dtype: str, what: str) -> NDArray[Any]:
            values = numpy.frombuffer(data, dtype)
            if values.size != shape[0] * shape[1]:
                raise InternalError(f"routes: {what} has {values.size} entries for {shape[0]} tokens at {shape[1]} layers")
            return values.reshape(shape)

        has_drops = len(message.drop_reasons) > 0
        return Routes(
            stack=member(Stack, message.stack),
            layers=tuple(message.layers),
            experts=array(message.experts, "<u2", "experts"),
            probabilities=array(message.probabilities, "<f4", "probabilities") if message.probabilities else None,
            drop_reasons=array(message.drop_reasons, "u1", "drop_reasons") if has_drops else numpy.zeros(shape, "u1"),
        )

    def message(self) -> gateway_pb2.Routes:
        """The protocol's form, for a request."""
        shape = (self.experts.shape[0], len(self.layers))
        for name in ("experts", "probabilities", "drop_reasons"):
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ValueError(f"routes: {name} has the shape {array.shape}, but must have {shape}: [tokens, layers]")
        probabilities = self.probabilities
        return gateway_pb2.Routes(
            stack=number(self.stack),  # type: ignore[arg-type]
            layers=self.layers,
            tokens=shape[0],
            experts=self.experts.astype("<u2").tobytes(),
            probabilities=probabilities.astype("<f4").tobytes() if probabilities is not None else b"",
            drop_reasons=self.drop_reasons.astype("u1").tobytes() if self.drop_reasons.any() else b"",
        )

    def to_html(self, labels: Optional[Sequence[str]] = None) -> str:
        """A table for notebooks: a row for each token, a column for each sparse layer, a colour for each expert.

        :param labels: What to call the tokens; their positions if it is left out.
        """
        if labels is not None and len(labels) != self.tokens:
            raise ValueError(f"there are {len(labels)} labels for {self.tokens} tokens")
        head = "".join(f"<th>block {layer}</th>" for layer in self.layers)
        rows = [f"<tr><th>{self.stack}</th>{head}</tr>"]
        for token in range(self.tokens):
            name = html.escape(labels[token]) if labels is not None else str(token)
            cells = "".join(self._cell(token, column) for column in range(len(self.layers)))
            rows.append(f'<tr><td style="text-align:left">{name}</td>{cells}</tr>')
        return f"<table>{''.join(rows)}</table>"

    def _cell(self, token: int, column: int) -> str:
        expert = int(self.experts[token, column])
        reason = member(DropReason, int(self.drop_reasons[token, column]))
        text = f"expert {expert}"
        if self.probabilities is not None:
            text += f", {self.probabilities[token, column]:.0%}"
        if reason is not DropReason.UNSPECIFIED:
            text += f", dropped: {reason}"
        # The golden angle keeps the colours of neighbouring numbers apart; the text says the same for all eyes.
        hue = round(expert * 137.508) % 360
        return f'<td style="background:hsl({hue},60%,85%);color:#000">{text}</td>'

    def _repr_html_(self) -> str:
        return self.to_html()


def routes_of(message: Any, name: str) -> Optional[Routes]:
    """The routes in a field of a message, if it has them."""
    return Routes.of(getattr(message, name)) if message.HasField(name) else None


@dataclass(frozen=True, eq=False)
class Generation:
    """One generated sequence."""

    #: The text, special tokens included: sentinels carry the answer.
    text: str
    #: The token ids, without the start token and without a decoder prefix.
    token_ids: Tuple[int, ...]
    finish_reason: FinishReason
    #: The sum of the tokens' log-probabilities divided by their number to the power of length_penalty.
    score: float
    #: One entry per token, if top_logprobs asked for them.
    logprobs: Tuple[TokenLogprob, ...] = ()
    #: The way through the decoder, if return_routes asked for it.
    decoder_routes: Optional[Routes] = field(default=None, repr=False)

    @property
    def spans(self) -> Dict[int, str]:
        """The texts by the number of the sentinel before each."""
        return _text.spans(self.text)

    def fill(self, prompt: str) -> str:
        """The prompt with this answer's texts in place of its sentinels."""
        return _text.fill(prompt, self.text)

    @staticmethod
    def of(message: gateway_pb2.Generation) -> Generation:
        """Reads a message."""
        return Generation(
            text=message.text,
            token_ids=tuple(message.token_ids),
            finish_reason=member(FinishReason, message.finish_reason),
            score=message.score,
            logprobs=tuple(TokenLogprob.of(entry) for entry in message.logprobs),
            decoder_routes=routes_of(message, "decoder_routes"),
        )


@dataclass(frozen=True, eq=False)
class GenerateResult:
    """The generated sequences, best first."""

    generations: Tuple[Generation, ...]
    usage: Usage
    #: The input, if it was text.
    prompt: Optional[str] = None
    #: The seed that tokens were sampled with; None if nothing was sampled.
    seed: Optional[int] = None
    #: The input's way through the encoder, if return_routes asked for it.
    encoder_routes: Optional[Routes] = field(default=None, repr=False)
    #: The receipt, if return_receipt asked for it: a message of the protocol.
    receipt: Optional[gateway_pb2.Receipt] = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The best sequence's text."""
        return self.generations[0].text

    @property
    def token_ids(self) -> Tuple[int, ...]:
        """The best sequence's token ids."""
        return self.generations[0].token_ids

    @property
    def filled(self) -> str:
        """The input with the best answer's texts in place of its sentinels.

        :raises ValueError: If the input was token ids.
        """
        if self.prompt is None:
            raise ValueError("the input was token ids, which have no sentinels to fill; use generations[0].fill(text)")
        return self.generations[0].fill(self.prompt)

    @staticmethod
    def of(message: gateway_pb2.GenerateResponse, prompt: Optional[str]) -> GenerateResult:
        """Reads a message.

        :raises InternalError: If it has no sequence.
        """
        if not message.generations:
            raise InternalError("the gateway's answer has no sequence")
        return GenerateResult(
            generations=tuple(Generation.of(generation) for generation in message.generations),
            usage=Usage.of(message.usage),
            prompt=prompt,
            seed=message.seed if message.HasField("seed") else None,
            encoder_routes=routes_of(message, "encoder_routes"),
            receipt=message.receipt if message.HasField("receipt") else None,
        )


@dataclass(frozen=True)
class GeneratedToken:
    """One more token of one sequence, while it is generated."""

    #: The index of the sequence, from 0.
    sequence: int
    token_id: int
    #: The text that it adds; empty while a character is incomplete. Joined, these are the sequence's text.
    text: str
    #: How likely it was, if top_logprobs asked for it.
    logprob: Optional[TokenLogprob] = None

    @staticmethod
    def of(message: gateway_pb2.GeneratedToken) -> GeneratedToken:
        """Reads a message."""
        logprob = TokenLogprob.of(message.logprob) if message.HasField("logprob") else None
        return GeneratedToken(message.sequence, message.token_id, message.text, logprob)


def matrix(message: types_pb2.Tensor, what: str) -> NDArray[numpy.float32]:
    """A tensor of two axes as an array that shares the message's bytes and cannot be written to.

    :raises InternalError: If it is none.
    """
    shape: List[int] = list(message.shape)
    if message.dtype != types_pb2.FLOAT32 or len(shape) != 2 or len(message.data) != shape[0] * shape[1] * 4:
        raise InternalError(f"{what}: not a float32 matrix: type {message.dtype}, shape {shape}, {len(message.data)} bytes")
    return numpy.frombuffer(message.data, "<f4").reshape(shape)
