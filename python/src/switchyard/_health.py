# SPDX-License-Identifier: Apache-2.0
"""The messages of grpc.health.v1.Health, in a pool of descriptors of their own.

In the default pool they would clash with those of grpcio-health-checking, if a program uses that too.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from switchyard._enums import HealthStatus, member

METHOD = "/grpc.health.v1.Health/Check"


def _classes() -> Any:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="switchyard/health.proto", package="grpc.health.v1", syntax="proto3")
    for name, field, kind in (
        ("HealthCheckRequest", "service", kinds.TYPE_STRING),
        # An enumeration, which is an int32 on the wire.
        ("HealthCheckResponse", "status", kinds.TYPE_INT32),
    ):
        message = file.message_type.add(name=name)
        message.field.add(name=field, number=1, type=kind, label=kinds.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("HealthCheckRequest", "HealthCheckResponse")
    return [message_factory.GetMessageClass(pool.FindMessageTypeByName(f"grpc.health.v1.{name}")) for name in names]


_Request, Response = _classes()


def request(service: str) -> Message:
    """A question for a service's full name, or the empty name for the server as a whole."""
    message: Message = _Request(service=service)
    return message


def status(message: Any) -> HealthStatus:
    """Reads an answer."""
    return member(HealthStatus, message.status)
