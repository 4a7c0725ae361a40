"""An HTTP client that receives files into memory of the caller, over connections that it keeps.

An event loop hands on each packet as an object of its own, which takes processor time and the
interpreter's lock from decoding. Here the system fills a large piece of memory in one call.
"""

import socket
import ssl
import struct
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPMessage,
    HTTPResponse,
    HTTPSConnection,
)
from typing import Any
from urllib.parse import urljoin, urlsplit

from iirc_data.shards import addresses

_SECONDS_TO_CONNECT = 30.0
_MOST_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LARGEST_REFUSAL = 1 << 16  # bytes of an answer that are read to keep the connection

_Place = tuple[str, str]


class StatusError(OSError):
    """A server answered with an error.

    Attributes:
        status: The HTTP status.
        headers: The headers of the answer.
    """

    def __init__(self, status: int, reason: str, headers: HTTPMessage) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.headers = headers


class WebClient:
    """Reads files at web addresses; any number of threads may use it at the same time."""

    def __init__(self) -> None:
        self._idle: defaultdict[_Place, list[HTTPConnection]] = defaultdict(list)
        self._lock = threading.Lock()
        self._security: ssl.SSLContext | None = None

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Iterator["Answer"]:
        """Request a file, following redirects.

        Args:
            url: Its address, with characters quoted.
            headers: Headers of the request.

        Yields:
            The answer, with status 200 or 206. Its connection serves the next request if the body
            was read to its end.

        Raises:
            StatusError: The server answered with an error.
            OSError: The server cannot be reached, is silent for too long, or ends the connection.
        """
        for _ in range(_MOST_REDIRECTS):
            place = _place(url)
            connection, response = self._answered(place, url, headers)
            answer = Answer(connection, response)
            try:
                if response.status in (200, 206):
                    yield answer
                    return
                if (response.length or 0) <= _LARGEST_REFUSAL:
                    answer.skip()
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or location is None:
                    raise _refusal(response)
                url = urljoin(url, location)
            finally:
                self._give_back(place, answer)
        raise OSError(f"more than {_MOST_REDIRECTS} redirects")

    def _answered(
        self, place: _Place, url: str, headers: Mapping[str, str]
    ) -> tuple[HTTPConnection, HTTPResponse]:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        while True:
            with self._lock:
                idle = self._idle[place]
                kept = idle.pop() if idle else None
            connection = self._connected(place) if kept is None else kept
            try:
                connection.sock.settimeout(addresses.SECONDS_OF_SILENCE)
                connection.request("GET", target, headers={"User-Agent": "iirc", **headers})
                return connection, connection.getresponse()
            except TimeoutError:
                connection.close()
                raise
            except (OSError, HTTPException) as error:
                connection.close()
                if kept is None:
                    raise _as_os_error(error) from error  # otherwise the server has ended it

    def _connected(self, place: _Place) -> HTTPConnection:
        scheme, host = place
        connection: HTTPConnection
        if scheme == "https":
            with self._lock:
                self._security = self._security or ssl.create_default_context()
            connection = HTTPSConnection(host, timeout=_SECONDS_TO_CONNECT, context=self._security)
        else:
            connection = HTTPConnection(host, timeout=_SECONDS_TO_CONNECT)
        connection.connect()
        return connection

    def _give_back(self, place: _Place, answer: "Answer") -> None:
        connection = answer.connection
        if not answer.is_complete or connection.sock is None:
            connection.close()
            return
        with self._lock:
            self._idle[place].append(connection)

    def close(self) -> None:
        """Close the connections that no thread uses."""
        with self._lock:
            idle = [connection for found in self._idle.values() for connection in found]
            self._idle.clear()
        for connection in idle:
            connection.close()


class Answer:
    """The answer to a request.

    Attributes:
        status: The HTTP status.
        headers: The headers.
        is_complete: Whether the body was read to its end.
    """

    def __init__(self, connection: HTTPConnection, response: HTTPResponse) -> None:
        self.connection = connection
        self._response = response
        self.status = response.status
        self.headers = response.headers
        self._socket: Any = connection.sock  # None if the connection ends with this answer
        self._left = None if response.chunked else response.length
        self._buffered: int | None = None
        self.is_complete = self._left == 0
        is_plain = type(self._socket) is socket.socket and self._left is not None
        self._may_gather = is_plain and sys.platform == "linux"
        if self._may_gather:  # the system waits until it has filled the memory, or the time is up
            seconds = addresses.SECONDS_OF_SILENCE
            limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._socket.settimeout(None)

    def read_into(self, buffer: memoryview) -> int:
        """Read the next bytes of the body.

        Args:
            buffer: Where to put them.

        Returns:
            Number of bytes, at least one; 0 at the end of the body.

        Raises:
            OSError: The connection ended before the body, or was silent for too long.
        """
        if self._left is None or self._socket is None:
            size = self._read_by_response(buffer)
        elif self._left == 0:
            return 0
        else:
            size = self._read_from_socket(buffer[: self._left])
        if size == 0:
            if self._left:
                raise ConnectionResetError(f"the connection ended {self._left} bytes too early")
            self.is_complete = True
        elif self._left is not None:
            self._left -= size
            if self._left == 0:
                self._finish()
        return size

    def skip(self) -> None:
        """Read the rest of the body, and drop it."""
        buffer = memoryview(bytearray(1 << 12))
        while self.read_into(buffer):
            pass

    def _read_by_response(self, buffer: memoryview) -> int:
        try:
            return self._response.readinto(buffer)
        except HTTPException as error:
            raise _as_os_error(error) from error

    def _read_from_socket(self, buffer: memoryview) -> int:
        file: Any = self._response.fp
        if self._buffered is None:
            self._buffered = len(file.peek())  # arrived with the headers
        if self._buffered:
            size = int(file.readinto(buffer[: self._buffered]))
            self._buffered -= size
            return size
        if not self._may_gather:
            return int(self._socket.recv_into(buffer))
        try:
            return int(self._socket.recv_into(buffer, len(buffer), socket.MSG_WAITALL))
        except BlockingIOError:  # how the system reports that the time is up
            raise TimeoutError("timed out") from None

    def _finish(self) -> None:
        self._response.close()
        self.is_complete = True


def _place(url: str) -> _Place:
    parts = urlsplit(url)
    if parts.scheme not in addresses.WEB_PROTOCOLS or not parts.netloc:
        raise OSError(f"a redirect leads to {parts.scheme}://, which is not a web address")
    return parts.scheme, parts.netloc.rpartition("@")[2]


def _refusal(response: HTTPResponse) -> OSError:
    if response.status == 404:
        return FileNotFoundError("404 Not Found")  # the address may be signed
    return StatusError(response.status, response.reason, response.headers)


def _as_os_error(error: Exception) -> OSError:
    return error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}")
