# SPDX-License-Identifier: Apache-2.0
"""How a client reaches a gateway: address, encryption, token, options of the channel."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from typing import Callable, List, Optional, Sequence, Tuple, Union

import grpc

#: Key-value pairs sent with a call.
Metadata = Sequence[Tuple[str, Union[str, bytes]]]
#: A token, or what returns one, which is asked before every attempt of a call.
Token = Union[str, Callable[[], str]]
#: A PEM file's path, or its bytes.
PEM = Union[str, "os.PathLike[str]", bytes]

#: Where a gateway listens by default.
DEFAULT_ADDRESS = "127.0.0.1:7400"


@dataclass(frozen=True)
class TLS:
    """An encrypted connection. The gateway must present a certificate for its name.

    Files are read when a client is made.
    """

    #: The authorities that may have signed the gateway's certificate; None for those that gRPC brings.
    ca: Optional[PEM] = None
    #: This client's certificate chain, for a gateway that asks for one (mutual TLS); together with ``key``.
    certificate: Optional[PEM] = None
    #: The private key of that certificate, without a passphrase.
    key: Optional[PEM] = None
    #: The name to expect in the gateway's certificate, if it is not the host of the address.
    server_name: Optional[str] = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            missing, given = ("key", "certificate") if self.key is None else ("certificate", "key")
            raise ValueError(f"TLS: {given} is given without {missing}; give both, or neither")

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files."""
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca), private_key=_read(self.key), certificate_chain=_read(self.certificate)
        )


def _read(pem: Optional[PEM]) -> Optional[bytes]:
    if pem is None or isinstance(pem, bytes):
        return pem
    with open(pem, "rb") as file:
        return file.read()


@dataclass(frozen=True)
class Target:
    """An address with a port, or a Unix socket: its address is the host then, and the port is 0."""

    host: str
    port: int

    @staticmethod
    def parse(address: str) -> Target:
        """Reads ``host:port``, ``[IPv6 address]:port`` or ``unix:/path``."""
        if address.startswith("unix:"):
            path = address[len("unix:") :]
            path = path[2:] if path.startswith("///") else path
            if not path.startswith("/") or path.startswith("//") or path.endswith("/"):
                raise ValueError(f'address "{address[:256]}" must name an absolute path, such as unix:/run/gateway.sock')
            return Target(f"unix:{path}", 0)
        host, colon, port = address.rpartition(":")
        fault = None
        if not colon or not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 65535:
            fault = "has no port from 1 to 65535"
        elif host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            fault = "has more than one colon; write an IPv6 address in brackets"
        if fault is None and not host:
            fault = "has no host"
        if fault is not None:
            raise ValueError(f'address "{address[:256]}" {fault}; write host:port or unix:/path')
        return Target(host, int(port))

    def __str__(self) -> str:
        if self.is_unix:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket."""
        return self.host.startswith("unix:")

    @property
    def is_loopback(self) -> bool:
        """Whether it certainly is this machine. Other names are not looked up: what a name means may change."""
        if self.is_unix:
            return True
        name = self.host.lower()
        if name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True)
class Connection:
    """What a client needs to open a channel."""

    target: Target
    tls: Optional[TLS]
    token: Optional[Token]
    max_response_bytes: int
    metadata: Metadata

    @staticmethod
    def make(
        address: str,
        tls: Optional[TLS],
        plaintext: bool,
        token: Optional[Token],
        max_response_bytes: int,
        metadata: Metadata,
    ) -> Connection:
        """Checks the options of a client."""
        target = Target.parse(address)
        if tls is not None and plaintext:
            raise ValueError("tls and plaintext are both given; choose one")
        if tls is None and not plaintext and not target.is_loopback:
            raise ValueError(
                f"the gateway {target} is not on this machine, and the connection would be plaintext; "
                "give tls=TLS(...), or plaintext=True where the network is trusted"
            )
        if not 1 <= max_response_bytes <= 2**31 - 1:
            raise ValueError(f"max_response_bytes is {max_response_bytes}, but must be from 1 to {2**31 - 1}")
        if isinstance(token, str):
            _check_token(token)
        return Connection(target, tls, token, max_response_bytes, tuple(metadata))

    @property
    def options(self) -> List[Tuple[str, Union[str, int]]]:
        """gRPC's channel arguments."""
        options: List[Tuple[str, Union[str, int]]] = [
            ("grpc.max_receive_message_length", self.max_response_bytes),
            ("grpc.max_send_message_length", -1),
            # A gateway that restarts is back within a second, and retries should find it.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 5000),
            # Closing a client closes its connection.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self.target.is_loopback:
            options.append(("grpc.enable_http_proxy", 0))
        if self.tls is not None and self.tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def call_metadata(self, attempt: int, extra: Metadata) -> Tuple[Tuple[str, Union[str, bytes]], ...]:
        """The metadata of an attempt.

        :param attempt: Which attempt it is, from 1.
        :param extra: The call's own.
        """
        pairs = [*self.metadata, *extra]
        token = self.token() if callable(self.token) else self.token
        if token is not None:
            pairs = [pair for pair in pairs if pair[0] != "authorization"]
            pairs.append(("authorization", f"Bearer {_check_token(token)}"))
        if attempt > 1:
            pairs.append(("grpc-previous-rpc-attempts", str(attempt - 1)))
        return tuple(pairs)


def _check_token(token: str) -> str:
    """The token, if it is one (RFC 6750, section 2.1); the error does not show it."""
    if not isinstance(token, str) or not re.fullmatch(r"[A-Za-z0-9._~+/=-]{1,4096}", token):
        raise ValueError("the token must be 1 to 4096 letters, digits and -._~+/=")
    return token
