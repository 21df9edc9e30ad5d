# SPDX-License-Identifier: Apache-2.0
"""Certificates and tokens, against a gateway and an expert host that ask for them."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from switchyard import (
    TLS,
    AsyncSwitchyard,
    HealthStatus,
    RetryPolicy,
    Switchyard,
    SwitchyardError,
    UnauthenticatedError,
    UnavailableError,
)

from conftest import MODEL, PATIENCE, PROMPT, until

TOKEN = "0123456789abcdef0123456789abcdef"
FILLED = "A horse! a horse! my kingdom for a horse!"


@dataclass
class Secure:
    """A cluster with mutual TLS and a token."""

    folder: Path
    address: str

    @property
    def tls(self) -> TLS:
        return TLS(
            ca=self.folder / "ca.pem",
            certificate=self.folder / "client.pem",
            key=self.folder / "client-key.pem",
            server_name="gateway.test",
        )


@contextmanager
def serving(command: List[str], address: Path) -> Iterator[str]:
    """Runs a service until the block ends; yields where it listens."""
    arguments = ["--listen", "127.0.0.1:0", "--address-file", str(address), "--exit-with-standard-input"]
    with subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE) as process:
        try:
            until(lambda: address.exists() or process.poll() is not None)
            assert process.poll() is None, f"{command} ended"
            yield address.read_text().strip()
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


@pytest.fixture(scope="module")
def secure(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("secure")
    certs = [binary, "certs", "--out", str(folder), "--host", "gateway.test", "--expert-host", "experts.test"]
    subprocess.run(certs, check=True, stdout=subprocess.DEVNULL)
    shard = [binary, "shard", str(MODEL), "--out", str(folder / "shards"), "--pools", "1"]
    subprocess.run(shard, check=True, stdout=subprocess.DEVNULL)
    (folder / "tokens").touch(mode=0o600)
    (folder / "tokens").write_text(f"tester:{TOKEN}\n")
    host = [
        *[binary, "expert-host", "--shard", f"{folder}/shards/pool-0", "--log-level", "error"],
        *["--tls-certificate", f"{folder}/expert-host.pem", "--tls-key", f"{folder}/expert-host-key.pem"],
        *["--tls-client-ca", f"{folder}/ca.pem", "--tls-allowed-clients", "spiffe://switchyard/gateway"],
    ]
    with serving(host, folder / "host.address") as experts:
        gateway = [
            *[binary, "gateway", "--model", f"{folder}/shards/gateway", "--pool", f"pool-0={experts}"],
            *["--tls-certificate", f"{folder}/gateway.pem", "--tls-key", f"{folder}/gateway-key.pem"],
            *["--tls-client-ca", f"{folder}/ca.pem", "--tls-allowed-clients", "spiffe://switchyard/client"],
            *["--tokens", f"{folder}/tokens", "--experts-tls-ca", f"{folder}/ca.pem", "--log-level", "error"],
            *["--experts-tls-certificate", f"{folder}/gateway.pem", "--experts-tls-key", f"{folder}/gateway-key.pem"],
            *["--experts-tls-server-name", "experts.test"],
        ]
        with serving(gateway, folder / "gateway.address") as address:
            secure = Secure(folder, address)
            with Switchyard(address, tls=secure.tls, token=TOKEN, timeout=PATIENCE) as client:
                until(lambda: client.cluster().complete)
            yield secure


def test_certificate_and_token(secure: Secure) -> None:
    with Switchyard(secure.address, tls=secure.tls, token=TOKEN, timeout=PATIENCE) as client:
        assert client.generate(PROMPT, strict=True).filled == FILLED
        assert client.generate_stream(PROMPT).result().filled == FILLED

    async def main() -> None:
        async with AsyncSwitchyard(secure.address, tls=secure.tls, token=TOKEN, timeout=PATIENCE) as client:
            assert (await client.generate(PROMPT)).filled == FILLED
            assert (await client.generate_stream(PROMPT).result()).filled == FILLED

    asyncio.run(main())


def test_pem_files_as_bytes_and_tokens_that_change(secure: Secure) -> None:
    names = ("ca.pem", "client.pem", "client-key.pem")
    ca, certificate, key = [(secure.folder / name).read_bytes() for name in names]
    tokens = [TOKEN, TOKEN[::-1]]
    tls = TLS(ca=ca, certificate=certificate, key=key, server_name="gateway.test")
    with Switchyard(secure.address, tls=tls, token=lambda: tokens.pop(0), timeout=PATIENCE) as client:
        assert client.generate(PROMPT).filled == FILLED
        with pytest.raises(UnauthenticatedError, match="this server does not know the token"):
            client.generate(PROMPT)


def test_no_token(secure: Secure) -> None:
    with Switchyard(secure.address, tls=secure.tls, timeout=PATIENCE) as client:
        with pytest.raises(UnauthenticatedError, match="this server requires a token"):
            client.generate(PROMPT)
        # Health is exempt.
        assert client.health() is HealthStatus.SERVING


@pytest.mark.parametrize("change", [{"server_name": "elsewhere.test"}, {"certificate": None, "key": None}, {"ca": None}])
def test_wrong_certificates(secure: Secure, change: Any) -> None:
    tls = TLS(**{**vars(secure.tls), **change})
    with Switchyard(secure.address, tls=tls, token=TOKEN, timeout=PATIENCE, retry=RetryPolicy.NONE) as client:
        with pytest.raises(UnavailableError) as caught:
            client.generate(PROMPT)
        assert isinstance(caught.value, SwitchyardError) and caught.value.message


def test_plaintext_to_a_port_with_tls(secure: Secure) -> None:
    with Switchyard(secure.address, token=TOKEN, timeout=PATIENCE, retry=RetryPolicy.NONE) as client:
        with pytest.raises(UnavailableError):
            client.generate(PROMPT)


@pytest.mark.parametrize(
    ("address", "options", "text"),
    [
        ("gateway.test:7400", {}, r"not on this machine.*plaintext; give tls=TLS\(...\), or plaintext=True"),
        ("10.0.0.1:7400", {"token": TOKEN}, "not on this machine"),
        ("gateway.test:7400", {"tls": TLS(), "plaintext": True}, "choose one"),
        ("127.0.0.1:7400", {"token": "two words"}, "the token must be 1 to 4096 letters"),
        ("127.0.0.1:7400", {"max_response_bytes": 0}, "max_response_bytes is 0"),
        ("127.0.0.1", {}, 'address "127.0.0.1" has no port'),
        ("127.0.0.1:0", {}, "has no port from 1 to 65535"),
        ("127.0.0.1:123456", {}, "has no port from 1 to 65535"),
        (":7400", {}, "has no host"),
        ("unix:gateway.sock", {}, "must name an absolute path"),
        ("unix://host/gateway.sock", {}, "must name an absolute path"),
        ("::1:7400", {}, "more than one colon; write an IPv6 address in brackets"),
    ],
)
def test_clients_that_make_no_sense(address: str, options: Any, text: str) -> None:
    for kind in (Switchyard, AsyncSwitchyard):
        with pytest.raises(ValueError, match=text) as caught:
            kind(address, **options)
        assert "two words" not in str(caught.value)
    with pytest.raises(ValueError, match="certificate is given without key"):
        TLS(certificate=b"x")


def test_addresses() -> None:
    for address in ("127.0.0.1:1", "localhost:1", "a.localhost:1", "[::1]:1", "127.9.9.9:65535"):
        with Switchyard(address) as client:
            assert client.address == address
    for address in ("unix:/run/gateway.sock", "unix:///run/gateway.sock"):
        with Switchyard(address) as client:
            assert client.address == "unix:/run/gateway.sock"
    with Switchyard("gateway.test:7400", plaintext=True) as client:
        assert "gateway.test:7400" in repr(client)
