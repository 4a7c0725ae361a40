"""The portable decoder: Pillow decodes and torch resizes, on threads."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

import torch

from iirc_data.loader.collected import CollectedImages
from iirc_data.loader.decoder import DecodeRequest, Requests, default_threads
from iirc_data.loader.per_process import PerProcess
from iirc_data.loader.resize import decode_window
from iirc_data.loader.threads import image_threads, submit_parts

_BATCHES_AHEAD = 2


class PillowDecoder:
    """Decodes with Pillow and augments with torch, on threads (Pillow releases the GIL).

    Args:
        threads: Number of threads; by default that of
            :func:`~iirc_data.loader.decoder.default_threads`.
    """

    name = "pillow"

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or default_threads()
        self._pool = PerProcess(partial(image_threads, self._threads, "iirc-decode"))

    def images(self, requests: Iterable[DecodeRequest]) -> Iterator[torch.Tensor]:
        """See :class:`iirc_data.loader.decoder.Decoder`."""
        pending: deque[_Batch] = deque()
        try:
            following = Requests.of(requests)
            while True:
                while pending and not following.is_ready():
                    yield self._collect(pending.popleft())
                if (request := next(following, None)) is None:
                    break
                pending.append(self._begun(request))
                if len(pending) > _BATCHES_AHEAD:
                    yield self._collect(pending.popleft())
            while pending:
                yield self._collect(pending.popleft())
        finally:
            for batch in pending:
                for task in batch.tasks:
                    task.cancel()

    def resolved(self, has_windows: bool) -> dict[str, Any]:
        """See :class:`iirc_data.loader.decoder.Decoder`."""
        return {}

    def close(self) -> None:
        """Stop the threads."""
        self._pool.get().shutdown(cancel_futures=True)

    def _begun(self, request: DecodeRequest) -> "_Batch":
        images = CollectedImages(request)

        def decode(numbers: range) -> None:
            images.put(numbers, [decode_window(request, number) for number in numbers])

        tasks = submit_parts(self._pool.get(), len(request.encoded), self._threads, decode)
        return _Batch(request, images, tasks, os.getpid())

    def _collect(self, batch: "_Batch") -> torch.Tensor:
        if batch.process != os.getpid():  # forked: those threads are not here
            batch = self._begun(batch.request)
        for task in batch.tasks:
            task.result()
        return batch.images.batch()


class _Batch(NamedTuple):
    """A batch whose images are being decoded."""

    request: DecodeRequest
    images: CollectedImages
    tasks: list[Future[None]]
    process: int
