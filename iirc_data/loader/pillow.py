"""The portable decoder: Pillow decodes and torch resizes, on threads."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import torch

from iirc_data.loader.decoder import DecodeRequest, default_threads
from iirc_data.loader.per_process import PerProcess
from iirc_data.loader.resize import decode_and_augment, stack

_BATCHES_AHEAD = 2


class PillowDecoder:
    """Decodes with Pillow and augments with torch, on threads (Pillow releases the GIL).

    Args:
        threads: Number of threads; by default that of
            :func:`~iirc_data.loader.decoder.default_threads`.
    """

    name = "pillow"

    def __init__(self, threads: int | None = None) -> None:
        self._pool = PerProcess(
            partial(ThreadPoolExecutor, threads or default_threads(), "iirc-decode")
        )

    def images(self, requests: Iterable[DecodeRequest]) -> Iterator[torch.Tensor]:
        """See :class:`iirc_data.loader.decoder.Decoder`."""
        pending: deque[_Batch] = deque()
        try:
            for request in requests:
                pending.append(self._begun(request))
                if len(pending) > _BATCHES_AHEAD:
                    yield self._collect(pending.popleft())
            while pending:
                yield self._collect(pending.popleft())
        finally:
            for batch in pending:
                for future in batch.images:
                    future.cancel()

    def resolved(self, has_windows: bool) -> dict[str, Any]:
        """See :class:`iirc_data.loader.decoder.Decoder`."""
        return {}

    def close(self) -> None:
        """Stop the threads."""
        self._pool.get().shutdown(cancel_futures=True)

    def _begun(self, request: DecodeRequest) -> "_Batch":
        submit = self._pool.get().submit
        images = [submit(decode_and_augment, request, n) for n in range(len(request.encoded))]
        return _Batch(request, images, os.getpid())

    def _collect(self, batch: "_Batch") -> torch.Tensor:
        if batch.process != os.getpid():  # forked: those threads are not here
            batch = self._begun(batch.request)
        return stack([image.result() for image in batch.images], batch.request)


class _Batch(NamedTuple):
    """A batch whose images are being decoded."""

    request: DecodeRequest
    images: list[Future[torch.Tensor]]
    process: int
