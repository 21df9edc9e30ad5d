# SPDX-License-Identifier: Apache-2.0
"""What a gateway says of its model and its cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from switchyard._enums import DType, ReplicaState, RolloutPhase, Stack, member
from switchyard._results import DroppedTokens
from switchyard.v1 import gateway_pb2, types_pb2


@dataclass(frozen=True)
class LayerExperts:
    """The experts of one sparse layer that something holds."""

    stack: Stack
    #: The index of the block that holds the sparse layer.
    layer: int
    #: The experts' indices, ascending.
    experts: Tuple[int, ...]

    @staticmethod
    def of(message: types_pb2.LayerExperts) -> LayerExperts:
        """Reads a message."""
        return LayerExperts(member(Stack, message.stack), message.layer, tuple(message.experts))


@dataclass(frozen=True)
class ModelInfo:
    """Which model is served and with which limits."""

    name: str
    #: The checkpoint's fingerprint: sixteen hexadecimal digits.
    fingerprint: str
    vocabulary_size: int
    #: The width of a hidden state.
    d_model: int
    #: The width of a feed-forward's inner layer.
    d_ff: int
    #: The width of one attention head.
    d_kv: int
    num_heads: int
    encoder_blocks: int
    decoder_blocks: int
    experts_per_layer: int
    #: The most tokens of one sequence that an expert takes in one sparse layer and step.
    expert_capacity: int
    #: The sparse layers, each with the experts that at least one verified host holds.
    sparse_layers: Tuple[LayerExperts, ...]
    #: The number of parameters, all experts included.
    parameters: int
    #: How the gateway's weights are stored.
    weight_dtype: DType
    #: The longest input, in tokens.
    max_input_tokens: int
    #: The largest max_new_tokens.
    max_new_tokens: int
    #: The largest num_beams and num_return_sequences.
    max_sequences: int
    #: The most inputs of one call of Encode or Score.
    max_inputs: int
    decoder_start_token_id: int
    end_token_id: int
    pad_token_id: int
    #: The version of the gateway's software.
    version: str

    @staticmethod
    def of(message: gateway_pb2.ModelDescription) -> ModelInfo:
        """Reads a message."""
        return ModelInfo(
            name=message.name,
            fingerprint=f"{message.fingerprint:016x}",
            vocabulary_size=message.vocabulary_size,
            d_model=message.d_model,
            d_ff=message.d_ff,
            d_kv=message.d_kv,
            num_heads=message.num_heads,
            encoder_blocks=message.encoder_blocks,
            decoder_blocks=message.decoder_blocks,
            experts_per_layer=message.experts_per_layer,
            expert_capacity=message.expert_capacity,
            sparse_layers=tuple(LayerExperts.of(layer) for layer in message.sparse_layers),
            parameters=message.parameters,
            weight_dtype=member(DType, message.weight_dtype),
            max_input_tokens=message.max_input_tokens,
            max_new_tokens=message.max_new_tokens,
            max_sequences=message.max_sequences,
            max_inputs=message.max_inputs,
            decoder_start_token_id=message.decoder_start_token_id,
            end_token_id=message.end_token_id,
            pad_token_id=message.pad_token_id,
            version=message.version,
        )


@dataclass(frozen=True)
class HostLoad:
    """The load that an expert host last reported."""

    #: Calls that wait or run.
    active_calls: int
    #: Token rows that wait for the compute threads.
    queued_rows: int
    #: The most token rows that may wait before calls are refused.
    queue_row_limit: int
    draining: bool
    #: Passes over experts' weights since the host started.
    passes: int
    #: Calls that those passes computed.
    computed_calls: int
    #: Token rows that those passes computed.
    computed_rows: int
    #: Experts that those calls named, counted per call.
    named_experts: int
    #: Experts whose weights those passes read.
    expert_reads: int

    @staticmethod
    def of(message: types_pb2.HostLoad) -> HostLoad:
        """Reads a message."""
        return HostLoad(
            active_calls=message.active_calls,
            queued_rows=message.queued_rows,
            queue_row_limit=message.queue_row_limit,
            draining=message.draining,
            passes=message.passes,
            computed_calls=message.computed_calls,
            computed_rows=message.computed_rows,
            named_experts=message.named_experts,
            expert_reads=message.expert_reads,
        )


@dataclass(frozen=True)
class ReplicaInfo:
    """One expert host as the gateway sees it."""

    #: Its address, host:port or unix:/path.
    address: str
    state: ReplicaState
    #: Why it is in a state other than ready.
    detail: str
    #: Calls in flight.
    outstanding_calls: int
    #: Token rows in flight.
    outstanding_rows: int
    #: Calls since the start.
    calls: int
    #: Token rows since the start.
    rows: int
    #: Calls that failed since the start.
    failures: int
    #: The median time of recent calls, in seconds.
    latency_p50: float
    #: The 99th percentile of the times of recent calls, in seconds.
    latency_p99: float
    #: The load that the host last reported, if it did.
    load: Optional[HostLoad]
    #: How often it was ejected since the start.
    ejections: int
    #: The zone that the host reports; empty if it reports none.
    zone: str
    #: How the host stores its weights.
    weight_dtype: DType
    #: The process at this address, as it reports.
    instance_id: str

    @staticmethod
    def of(message: gateway_pb2.ReplicaDescription) -> ReplicaInfo:
        """Reads a message."""
        return ReplicaInfo(
            address=message.address,
            state=member(ReplicaState, message.state),
            detail=message.detail,
            outstanding_calls=message.outstanding_calls,
            outstanding_rows=message.outstanding_rows,
            calls=message.calls,
            rows=message.rows,
            failures=message.failures,
            latency_p50=message.latency_p50_microseconds / 1e6,
            latency_p99=message.latency_p99_microseconds / 1e6,
            load=HostLoad.of(message.load) if message.HasField("load") else None,
            ejections=message.ejections,
            zone=message.zone,
            weight_dtype=member(DType, message.weight_dtype),
            instance_id=message.instance_id,
        )


@dataclass(frozen=True)
class PoolInfo:
    """The hosts that hold one set of experts."""

    name: str
    #: The experts that the pool's hosts hold, by sparse layer.
    experts: Tuple[LayerExperts, ...]
    replicas: Tuple[ReplicaInfo, ...]
    #: Experts of other pools that every ready host of this one holds too.
    spare: Tuple[LayerExperts, ...]
    #: The spare experts whose rows are also sent here because they are hot.
    extra: Tuple[LayerExperts, ...]
    #: Calls since the start, one per layer.
    calls: int
    #: Calls also sent to a second host because the first one was silent.
    hedges: int
    #: Hedged calls that the second host answered first.
    hedges_won: int
    #: Attempts after a failed one.
    retries: int
    #: Token rows that were dropped.
    dropped_rows: int

    @staticmethod
    def of(message: gateway_pb2.PoolDescription) -> PoolInfo:
        """Reads a message."""
        return PoolInfo(
            name=message.name,
            experts=tuple(LayerExperts.of(layer) for layer in message.experts),
            replicas=tuple(ReplicaInfo.of(replica) for replica in message.replicas),
            spare=tuple(LayerExperts.of(layer) for layer in message.spare),
            extra=tuple(LayerExperts.of(layer) for layer in message.extra),
            calls=message.calls,
            hedges=message.hedges,
            hedges_won=message.hedges_won,
            retries=message.retries,
            dropped_rows=message.dropped_rows,
        )


@dataclass(frozen=True)
class GatewayLoad:
    """What the gateway is doing."""

    #: Sequences that wait for a batch slot.
    queued: int
    #: The most sequences that may wait.
    queue_limit: int
    #: Sequences that are being encoded or decoded.
    running: int
    #: Batch slots in use.
    used_slots: int
    #: Batch slots in total.
    batch_slots: int
    #: Whether it finishes its work and takes no more.
    draining: bool
    #: Seconds since it started to serve.
    uptime_seconds: int
    #: Decoded tokens since the start.
    decoded_tokens: int
    #: Steps since the start.
    steps: int

    @staticmethod
    def of(message: gateway_pb2.GatewayLoad) -> GatewayLoad:
        """Reads a message."""
        return GatewayLoad(
            queued=message.queued,
            queue_limit=message.queue_limit,
            running=message.running,
            used_slots=message.used_slots,
            batch_slots=message.batch_slots,
            draining=message.draining,
            uptime_seconds=message.uptime_seconds,
            decoded_tokens=message.decoded_tokens,
            steps=message.steps,
        )


@dataclass(frozen=True)
class LayerLoad:
    """How many tokens each expert of one sparse layer took."""

    stack: Stack
    #: The index of the block that holds the sparse layer.
    layer: int
    #: Token rows that were dispatched, by expert index.
    rows: Tuple[int, ...]
    #: Moving average of the rows dispatched per second, by expert index.
    rows_per_second: Tuple[float, ...]

    @staticmethod
    def of(message: gateway_pb2.LayerLoad) -> LayerLoad:
        """Reads a message."""
        stack = member(Stack, message.stack)
        return LayerLoad(stack, message.layer, tuple(message.rows), tuple(message.rows_per_second))


@dataclass(frozen=True)
class ClusterInfo:
    """How the gateway sees its cluster."""

    #: The expert pools, by name.
    pools: Tuple[PoolInfo, ...]
    gateway: GatewayLoad
    #: The fingerprint of the checkpoint that is served: sixteen hexadecimal digits.
    model_fingerprint: str
    #: Whether every expert is held by a host that is ready.
    complete: bool
    #: Tokens without an expert's output since the start.
    dropped: Tuple[DroppedTokens, ...]
    #: Routed tokens since the start, counted once per sparse layer.
    routed_tokens: int
    #: Where the tokens went since the start, one entry per sparse layer, the encoder's first.
    expert_load: Tuple[LayerLoad, ...]
    #: The type of token rows on their way to the expert hosts and back.
    row_dtype: DType

    @staticmethod
    def of(message: gateway_pb2.ClusterDescription) -> ClusterInfo:
        """Reads a message."""
        return ClusterInfo(
            pools=tuple(PoolInfo.of(pool) for pool in message.pools),
            gateway=GatewayLoad.of(message.gateway),
            model_fingerprint=f"{message.model_fingerprint:016x}",
            complete=message.complete,
            dropped=tuple(DroppedTokens.of(dropped) for dropped in message.dropped),
            routed_tokens=message.routed_tokens,
            expert_load=tuple(LayerLoad.of(load) for load in message.expert_load),
            row_dtype=member(DType, message.row_dtype),
        )


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint that a gateway has loaded."""

    #: Its name: a folder among the gateway's checkpoints; empty for the one that the gateway was started with.
    checkpoint: str
    #: Its fingerprint: sixteen hexadecimal digits, all 0 while it is being loaded.
    fingerprint: str
    #: Requests that run or wait on it.
    running: int
    #: Requests that it has taken since it was loaded.
    taken: int

    @staticmethod
    def of(message: gateway_pb2.LoadedCheckpoint) -> LoadedCheckpoint:
        """Reads a message."""
        return LoadedCheckpoint(message.checkpoint, f"{message.fingerprint:016x}", message.running, message.taken)


@dataclass(frozen=True)
class RolloutInfo:
    """How far a change of a gateway's checkpoint is."""

    phase: RolloutPhase
    #: The checkpoint that is served, after a restart too.
    serving: LoadedCheckpoint
    #: The other one that is loaded, or is being loaded.
    other: Optional[LoadedCheckpoint]
    #: The other one's share of the new requests.
    share: float
    #: Expert hosts that hold the other one.
    ready_hosts: int
    #: Expert hosts in all.
    hosts: int
    #: Why the last change ended early, or what is waited for; for people to read.
    detail: str

    @staticmethod
    def of(message: gateway_pb2.RolloutDescription) -> RolloutInfo:
        """Reads a message."""
        return RolloutInfo(
            phase=member(RolloutPhase, message.phase),
            serving=LoadedCheckpoint.of(message.serving),
            other=LoadedCheckpoint.of(message.other) if message.HasField("other") else None,
            share=message.share,
            ready_hosts=message.ready_hosts,
            hosts=message.hosts,
            detail=message.detail,
        )
