"""A SHA-256 that a second thread computes while the first goes on with the data."""

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

_MOST_WAITING = 2


class DigestThread:
    """Computes a SHA-256 in a thread of its own; leave the context before reading the result."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def update(self, data: Any) -> None:
        """Add data, which must not change any more; wait while much is still to be done.

        Args:
            data: Contiguous buffer.
        """
        if len(self._waiting) == _MOST_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._digest.update, data))

    def hexdigest(self) -> str:
        """Return the digest of all data, in the order of the calls."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=error is not None)
