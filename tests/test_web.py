"""The web client that reads shards: connections, redirects, and what it leaves to fsspec."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from iirc_data.shards import addresses, direct
from iirc_data.shards.direct import Direct
from iirc_data.shards.web import StatusError, WebClient

BODY = bytes(range(256)) * 40


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append((self.client_address[1], self.path))
        match self.path:
            case "/chunked":
                self._head(200, {"Transfer-Encoding": "chunked"})
                for part in (BODY[:100], BODY[100:], b""):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            case "/old":  # ends with its connection
                self.close_connection = True
                self._head(200, {"Connection": "close"})
                self.wfile.write(BODY)
            case "/closes":
                self.close_connection = True
                self._body(200)
            case "/moved":
                self._body(302, {"Location": "whole?a=b"})
            case "/circle":
                self._body(302, {"Location": "circle"})
            case "/elsewhere":
                self._body(302, {"Location": "file:///etc/passwd"})
            case "/refused":
                self._body(503, {"Retry-After": "7"})
            case "/cut":
                self.close_connection = True
                self._head(200, {"Content-Length": str(2 * len(BODY))})
                self.wfile.write(BODY)
            case "/silent":
                self.close_connection = True
                self._head(200, {"Content-Length": str(2 * len(BODY))})
                self.wfile.write(BODY)
                self.server.over.wait(10)
            case "/nothing":
                self._body(404)
            case _:
                self._body(200)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, status: int, headers: dict[str, str] | None = None) -> None:
        self._head(status, {"Content-Length": str(len(BODY)), **(headers or {})})
        self.wfile.write(BODY)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.asked, server.over = [], threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


def read(client: WebClient, server: ThreadingHTTPServer, path: str, at_once: int = 1000) -> bytes:
    found, buffer = b"", memoryview(bytearray(at_once))
    with client.get(f"http://127.0.0.1:{server.server_port}{path}", {}) as answer:
        while size := answer.read_into(buffer):
            found += buffer[:size]
        assert answer.is_complete
    return found


@pytest.mark.parametrize("path", ["/whole", "/chunked", "/old", "/closes", "/moved"])
@pytest.mark.parametrize("at_once", [1, 1000, 1 << 20])
def test_a_body_is_read_however_it_is_sent(server, path, at_once):
    client = WebClient()
    if at_once == 1 and path != "/whole":
        at_once = 7
    assert [read(client, server, path, at_once) for _ in range(2)] == [BODY] * 2
    client.close()


def test_a_connection_serves_one_request_after_another(server):
    client = WebClient()
    server.asked.clear()
    for path in ("/1", "/moved", "/3"):
        read(client, server, path)
    assert [path for _, path in server.asked] == ["/1", "/moved", "/whole?a=b", "/3"]
    assert len({port for port, _ in server.asked}) == 1


def test_a_connection_that_the_server_has_ended_is_replaced(server):
    client = WebClient()
    read(client, server, "/1")
    for idle in client._idle.values():
        idle[0].sock.shutdown(2)
    assert read(client, server, "/2") == BODY


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("/refused", StatusError, "503"),
        ("/nothing", FileNotFoundError, "404"),
        ("/cut", OSError, f"{len(BODY)} bytes too early"),
        ("/silent", TimeoutError, "timed out"),
        ("/circle", OSError, "redirects"),
        ("/elsewhere", OSError, "file://"),
    ],
)
def test_what_goes_wrong_is_an_error(server, monkeypatch, path, error, message):
    monkeypatch.setattr(addresses, "SECONDS_OF_SILENCE", 0.2)
    client = WebClient()
    with pytest.raises(error, match=message) as caught:
        read(client, server, path)
    if path == "/refused":
        assert caught.value.headers["Retry-After"] == "7"
    assert read(client, server, "/whole") == BODY


def test_what_arrives_before_a_connection_ends_is_read(server):
    found, buffer = b"", memoryview(bytearray(1 << 20))
    client = WebClient()
    url = f"http://127.0.0.1:{server.server_port}/cut"
    with pytest.raises(ConnectionError), client.get(url, {}) as answer:
        while size := answer.read_into(buffer):
            found += buffer[:size]
    assert found == BODY


URL = "https://lab.org/shards/a.tar"


@pytest.mark.parametrize(
    ("url", "options", "variables", "expected"),
    [
        (URL, {"client_kwargs": {}, "encoded": True}, {}, URL),
        (URL, {"headers": {"Authorization": "x"}}, {}, None),
        ("https://user:word@lab.org/a.tar", {}, {}, None),
        (URL, {}, {"https_proxy": "http://proxy:1"}, None),
        (URL, {}, {"http_proxy": "http://proxy:1"}, URL),
        (URL, {}, {"https_proxy": "http://proxy:1", "no_proxy": "lab.org"}, URL),
    ],
)
def test_a_client_of_ones_own_reads_plain_addresses_only(
    monkeypatch, tmp_path, url, options, variables, expected
):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    filesystem = SimpleNamespace(storage_options=options)
    assert Direct().url(url, filesystem, url) == expected
    (tmp_path / "netrc").write_text("")
    assert Direct().url(url, filesystem, url) is None


def test_addresses_are_signed_again_after_a_while_and_not_at_all_once_refused(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(direct.time, "monotonic", lambda: now[0])
    signed: list[str] = []

    def sign(place: str, expiration: int) -> str:
        signed.append(place)
        return f"https://lab.org/{place}?{len(signed)}"

    filesystem, one = SimpleNamespace(sign=sign), Direct()
    found = []
    for now[0] in (0.0, 299.0, 301.0):
        found.append(one.url("s3://lab", filesystem, "a"))
    assert [url[-1] for url in found] == ["1", "1", "2"]
    assert one.is_to_blame("s3://lab", OSError("no route"))
    assert one.url("s3://lab", filesystem, "a") is None
    other = Direct()
    other.worked()
    assert not other.is_to_blame("s3://lab", OSError("reset"))
    assert not other.is_to_blame("s3://lab", FileNotFoundError("a"))
    assert not other.is_to_blame("https://lab.org", StatusError(403, "no", {}))
    assert other.is_to_blame("s3://lab", StatusError(403, "no", {}))
