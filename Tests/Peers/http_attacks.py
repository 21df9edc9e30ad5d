# SPDX-License-Identifier: Apache-2.0
"""Attacks a gateway over HTTP while a client that means well asks it, and prints what happened as JSON.

usage: http_attacks.py COMMAND HOST:PORT GATEWAY_PID

COMMAND is one of malformed, flood, slow.
"""

import http.client
import json
import os
import random
import socket
import sys
import threading
import time

PROMPT = "A horse! a horse! my <extra_id_0> for a horse!"


class Gateway:
    def __init__(self, address, pid):
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)
        self.pid = pid

    def connect(self):
        return socket.create_connection((self.host, self.port), timeout=300)

    def post(self, path, body, timeout=300):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, dict(answer.headers), content

    def is_well(self):
        status, _, content = self.post("/generate", {"inputs": PROMPT})
        return status == 200 and b"kingdom" in content

    def peak_kib(self):
        with open(f"/proc/{self.pid}/status") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

    def sockets(self):
        count = 0
        for entry in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                count += os.readlink(f"/proc/{self.pid}/fd/{entry}").startswith("socket:")
            except FileNotFoundError:
                pass
        return count


def head(lines, body=b""):
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def openings():
    """What no request begins with, and requests that break HTTP's or JSON's rules, with the status that they may get."""
    draw = random.Random(3)
    post = ["POST /v1/generate HTTP/1.1", "host: x", "content-type: application/json"]
    yield draw.randbytes(2_000), {400, None}
    yield b"\x00" * 100, {400, None}
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400, None}
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + draw.randbytes(500), {None}
    yield b"GET / HTTP/9.9\r\n\r\n", {400, 404, 405, 505, None}
    yield head(["GET /health HTTP/1.1", "host: x", "a: " + "b" * 100_000]), {400, 431, None}
    yield head(["GET /health HTTP/1.1", "host: x"] + [f"a{i}: b" for i in range(5_000)]), {400, 431, None}
    yield head(["GET /" + "x" * 200_000 + " HTTP/1.1", "host: x"]), {400, 404, 414, None}
    yield head(["POST /v1/generate HTTP/1.1", "host: x", "content-length: 99999999999"]), {413, 415, None}
    yield head(post + ["content-length: -5"]), {400, None}
    yield head(post + ["content-length: 5", "transfer-encoding: chunked"], b"0\r\n\r\n"), {400, None}
    yield head(post + ["transfer-encoding: chunked"], b"ZZ\r\n"), {400, None}
    yield head(post + ["transfer-encoding: chunked"], b"".join(b"100000\r\n" + b" " * 0x100000 + b"\r\n" for _ in range(8))), {413, None}
    for text in (
        b"", b"{", b"null", b"[" * 100_000, b'{"a":' * 100_000, b'{"text":"\xff"}', b'{"text":"\\ud800"}', b'{"text":"a","text":"b"}',
        b'{"text":"a","parameters":{"maxNewTokens":1e400}}', b'{"inputIds":{"ids":[' + b"0," * 500_000 + b"0]}}",
        b'{"text":"' + b"a" * 3_000_000 + b'"}', b"\xef\xbb\xbf{}", b"{}" * 10,
    ):
        yield head(post + [f"content-length: {len(text)}"], text), {400}


def status_of(gateway, opening):
    with gateway.connect() as connection:
        connection.settimeout(60)
        try:
            connection.sendall(opening)
        except OSError:
            pass
        received = b""
        try:
            while b"\r\n" not in received and len(received) < 1_000:
                part = connection.recv(4_096)
                if not part:
                    break
                received += part
        except OSError:
            pass
    if received.startswith(b"HTTP/1.1 "):
        return int(received.split(b" ")[1])
    return None


def malformed(gateway):
    before = gateway.peak_kib()
    wrong = []
    tried = 0
    for _ in range(3):
        for opening, allowed in openings():
            tried += 1
            status = status_of(gateway, opening)
            if status not in allowed:
                wrong.append([opening[:60].decode("latin-1"), status])
        if not gateway.is_well():
            wrong.append(["a good request", None])
    return {"tried": tried, "wrong": wrong, "growth_kib": gateway.peak_kib() - before}


def flood(gateway):
    """Many clients at once: each is answered or told when to come back."""
    before = gateway.peak_kib()
    counts, hints, odd = {}, [], []
    lock = threading.Lock()

    def ask(index):
        path, body = ("/generate", {"inputs": PROMPT}) if index % 2 else ("/v1/generate", {"text": PROMPT})
        try:
            status, headers, content = gateway.post(path, body)
        except OSError as error:
            status, headers, content = 0, {}, str(error).encode()
        with lock:
            counts[status] = counts.get(status, 0) + 1
            if status == 429:
                hints.append(int({k.lower(): v for k, v in headers.items()}["retry-after"]))
            elif status != 200:
                odd.append([status, content[:200].decode("latin-1")])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = {"answered": counts.get(200, 0), "refused": counts.get(429, 0), "odd": odd[:5], "hints": len(hints)}
    report["is_well"] = gateway.is_well()
    report["growth_kib"] = gateway.peak_kib() - before
    return report


def settled(count):
    """A count, once it has not changed for a second."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < 1:
        time.sleep(0.1)
        now = count()
        if now != last:
            last, since = now, time.monotonic()
    return last


def slow(gateway):
    """Clients that read nothing, and clients that send nothing more: the gateway serves others and lets them go."""
    gateway.is_well()
    # The gateway may close the connection of that question a little later.
    before_sockets, before = settled(gateway.sockets), gateway.peak_kib()
    body = json.dumps({"text": PROMPT, "targetText": PROMPT * 6, "returnLogits": True}).encode()
    held = []
    for index in range(40):
        connection = socket.socket()
        # A small window, so that answers wait at the gateway.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect((gateway.host, gateway.port))
        lines = ["POST /v1/score HTTP/1.1", "host: x", "content-type: application/json", f"content-length: {len(body)}"]
        kind = index % 4
        if kind == 0:
            connection.sendall(head(lines, body[:10]))
        elif kind == 1:
            connection.sendall(head(lines)[:40])
        else:
            connection.sendall(head(lines, body))
        held.append(connection)
    well = gateway.is_well()
    most = gateway.sockets()
    deadline = time.monotonic() + 240
    while gateway.sockets() > before_sockets and time.monotonic() < deadline:
        time.sleep(0.5)
        well = well and gateway.is_well()
    report = {"is_well": well, "held": most - before_sockets, "left": gateway.sockets() - before_sockets}
    report["growth_kib"] = gateway.peak_kib() - before
    for connection in held:
        connection.close()
    return report


if __name__ == "__main__":
    command, address, pid = sys.argv[1:]
    target = Gateway(address, int(pid))
    print(json.dumps({"malformed": malformed, "flood": flood, "slow": slow}[command](target)))
