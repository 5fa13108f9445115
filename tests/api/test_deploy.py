"""The nginx example in front of a real pool: routes, 304, compression, push, and whose requests they are."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.api.sockets import serving
from tests.api.test_serving import WITHIN_S, Pool, free_port, until
from tests.api.world import World

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "deploy" / "nginx.conf"
NGINX = os.environ.get("MPENGINE_NGINX") or shutil.which("nginx")
OPENSSL = shutil.which("openssl")
MAP = "/orderbook_heatmap"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def configured(directory: Path, port: int, upstream: int) -> str:
    """The example with this machine's ports, certificate and directories; nothing else is touched."""
    text = EXAMPLE.read_text("utf-8")
    mine = "".join(f"    {name}_temp_path {directory / name};\n" for name in TEMPORARY)
    for old, new in (
        ("worker_processes auto;", f"worker_processes 1;\npid {directory / 'pid'};\nerror_log {directory / 'error.log'};"),
        ("http {\n", f"http {{\n{mine}"),
        ("/var/log/nginx/mpengine.log", str(directory / "access.log")),
        ("        listen 80;\n        listen [::]:80;\n", f"        listen 127.0.0.1:{free_port()};\n"),
        ("        listen 443 ssl http2;\n        listen [::]:443 ssl http2;\n", f"        listen 127.0.0.1:{port} ssl http2;\n"),
        ("/etc/letsencrypt/live/api.example.net/fullchain.pem", str(directory / "cert.pem")),
        ("/etc/letsencrypt/live/api.example.net/privkey.pem", str(directory / "key.pem")),
        ("server 127.0.0.1:8899;", f"server 127.0.0.1:{upstream};"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@dataclass
class Front:
    """nginx before the pool. A client is told by its own address of the loopback network."""

    port: int
    pool: Pool
    directory: Path
    process: subprocess.Popen[bytes]
    context: ssl.SSLContext = field(init=False)

    def __post_init__(self) -> None:
        self.context = ssl.create_default_context(cafile=str(self.directory / "cert.pem"))

    def connect(self, source: str = "127.0.0.1") -> ssl.SSLSocket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=WITHIN_S, source_address=(source, 0))
        return self.context.wrap_socket(made, server_hostname="api.example.net")

    def ask(
        self,
        target: str,
        headers: dict[str, str] | None = None,
        *,
        source: str = "127.0.0.1",
        method: str = "GET",
        body: bytes = b"",
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPSConnection("api.example.net", self.port, context=self.context, timeout=WITHIN_S)
        connection.sock = self.connect(source)
        try:
            connection.request(method, target, body=body or None, headers=headers or {})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()


def certificate(directory: Path) -> None:
    """A self-signed one of two days, in place of what was there."""
    assert OPENSSL is not None
    subprocess.run(
        [OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=api.example.net", "-addext", "subjectAltName=DNS:api.example.net",
         "-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip


@pytest.fixture
def front(world: World, tmp_path: Path) -> Iterator[Front]:
    if NGINX is None or OPENSSL is None:
        pytest.skip("nginx or openssl is not installed here")
    directory = tmp_path
    directory.chmod(0o755)
    certificate(directory)
    limits = {"rate_limits": True, "rate_burst": 60, "rate_per_s": 1.0}
    with serving(world, behind_proxy=True, trusted_proxies=["127.0.0.1"], **limits) as pool:
        port = free_port()
        (directory / "nginx.conf").write_text(configured(directory, port, pool.port), "utf-8")
        command = [
            NGINX,
            "-p",
            str(directory),
            "-c",
            str(directory / "nginx.conf"),
            "-e",
            str(directory / "error.log"),
            "-g",
            "daemon off;",
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            made = Front(port, pool, directory, process)

            def answers() -> bool:
                assert process.poll() is None, process.communicate()[0]
                try:
                    return made.ask("/livez")[0] == 200
                except ConnectionError:
                    return False

            until(answers, "nginx")
            yield made
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=WITHIN_S)
            finally:
                process.kill()
                process.communicate()


def test_routes_and_304_through_the_proxy(front: Front) -> None:
    status, headers, body = front.ask(MAP)
    assert status == 200 and json.loads(body)["symbol"] == "BTC"
    assert headers["strict-transport-security"] and headers["x-seq"] and headers["ratelimit"]
    for tag in (headers["etag"], f'W/"x", {headers["etag"]}'):
        short = front.ask(MAP, {"If-None-Match": tag})
        assert (short[0], short[2], short[1]["etag"]) == (304, b"", headers["etag"])
    assert front.ask(MAP, method="HEAD")[2] == b""
    assert front.ask("/nope")[0] == 404 and front.ask(f"{MAP}?symbol=DOGE")[0] == 400
    assert front.ask(MAP, method="PUT")[0] == 405
    assert front.ask("/metrics")[0] == 404
    assert front.ask("/livez", method="POST", body=b"b" * 20_000)[0] == 413


def test_what_is_not_compressed_here_is_compressed_there(front: Front) -> None:
    plain = front.ask(MAP, {"Accept-Encoding": "identity"})
    status, headers, body = front.ask(MAP, {"Accept-Encoding": "gzip"})
    assert (status, headers["content-encoding"]) == (200, "gzip") and "Accept-Encoding" in headers["vary"]
    assert len(body) < len(plain[2]) / 2 and json.loads(gzip.decompress(body))["symbol"] == "BTC"
    assert "content-encoding" not in plain[1]
    again = front.ask(MAP, {"Accept-Encoding": "gzip", "If-None-Match": headers["etag"]})
    assert (again[0], again[2]) == (304, b"")
    binary = front.ask("/orderbook_heatmap_history?format=bin", {"Accept-Encoding": "gzip"})
    assert gzip.decompress(binary[2])[:1] == b"\x01"


@pytest.mark.covers("T-H4")
def test_every_client_has_its_own_limit_and_none_can_be_forged(front: Front) -> None:
    def drain(source: str, forged: str | None = None) -> int:
        """Answers until the first refusal."""
        for number in range(100):
            headers = {} if forged is None else {"X-Forwarded-For": forged.format(number)}
            if front.ask(MAP, headers, source=source)[0] == 429:
                return number
        return 100

    assert 55 <= drain("127.0.0.2") <= 75
    assert drain("127.0.0.2", "198.51.100.{}") <= 15, "an address of the client's own invention is worth nothing"
    assert front.ask(MAP, source="127.0.0.3")[0] == 200
    assert front.ask(MAP, {"X-Forwarded-For": "127.0.0.2"}, source="127.0.0.3")[0] == 200


def test_a_stream_is_not_held_back(front: Front) -> None:
    with front.connect() as link:
        link.sendall(b"GET /stream?channels=depth.BTC HTTP/1.1\r\nHost: api.example.net\r\n\r\n")
        got = b""
        while b"event: snapshot" not in got:
            piece = link.recv(65_536)
            assert piece, got
            got += piece
        head = got.partition(b"\r\n\r\n")[0].lower()
        assert got.startswith(b"HTTP/1.1 200") and b"text/event-stream" in head and b"content-encoding" not in head
        link.settimeout(WITHIN_S)
        while b"event: beat" not in got:  # one every 5 s, each at once
            piece = link.recv(65_536)
            assert piece
            got += piece


def test_a_socket_is_upgraded(front: Front) -> None:
    key = base64.b64encode(bytes(16))
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n"
    for origin, status in (
        (b"", b"101"),
        (b"Origin: https://api.example.net\r\n", b"101"),
        (b"Origin: https://evil.example\r\n", b"403"),
    ):
        with front.connect() as link:
            link.sendall(b"GET /ws HTTP/1.1\r\nHost: api.example.net\r\n" + upgrade + origin + b"\r\n")
            assert link.recv(65_536).split()[1] == status, origin


def test_who_is_slow_with_its_head_is_closed(front: Front) -> None:
    """After 5 s, and long before the 30 s that mpengine itself would give."""
    with front.connect() as link:
        link.sendall(b"GET /livez HTTP/1.1\r\nHost: api")
        got = b""
        try:
            while piece := link.recv(1000):
                got += piece
        except (ConnectionError, ssl.SSLError):
            pass  # reset_timedout_connection
    assert b" 200 " not in got


def test_a_new_certificate_is_taken_and_every_request_is_answered(front: Front) -> None:
    certificate(front.directory)
    renewed = Front(front.port, front.pool, front.directory, front.process)
    with pytest.raises(ssl.SSLCertVerificationError):
        renewed.ask("/livez")
    front.process.send_signal(signal.SIGHUP)

    def is_new() -> bool:
        for one in (front, renewed):
            try:
                assert one.ask("/livez")[0] == 200
            except ssl.SSLCertVerificationError:
                continue
            return one is renewed
        return False  # changed between the two

    until(is_new, "the new certificate")


def test_while_the_pool_is_gone_clients_are_told_to_come_back(front: Front) -> None:
    front.pool.process.send_signal(signal.SIGTERM)
    front.pool.process.wait(WITHIN_S)
    status, headers, body = front.ask(MAP)
    assert (status, json.loads(body)["error"], headers["retry-after"]) == (503, "overloaded", "2")


def test_the_caddy_example_names_the_same_bounds() -> None:
    text = (EXAMPLE.parent / "Caddyfile").read_text("utf-8")
    for part in ("read_header 5s", "read_body 5s", "idle 60s", "max_size 16KB", "flush_interval -1", "respond /metrics 404"):
        assert part in text
    nginx = EXAMPLE.read_text("utf-8")
    for part in ("client_header_timeout 5s", "client_body_timeout 5s", "keepalive_timeout 60s", "client_max_body_size 16k",
                 "large_client_header_buffers 4 8k", "limit_conn per_address", "proxy_buffering off",
                 "X-Forwarded-For $remote_addr"):  # fmt: skip
        assert part in nginx
