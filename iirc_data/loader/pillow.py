"""The portable decoder: Pillow decodes and torch resizes, on threads."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from iirc_data.loader.decoder import DecodeRequest, default_threads
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
        self._pool = ThreadPoolExecutor(threads or default_threads(), "iirc-decode")

    def images(self, requests: Iterable[DecodeRequest]) -> Iterator[torch.Tensor]:
        """See :class:`iirc_data.loader.decoder.Decoder`."""
        pending: deque[tuple[DecodeRequest, list[Future[torch.Tensor]]]] = deque()
        try:
            for request in requests:
                submitted = [
                    self._pool.submit(decode_and_augment, request, number)
                    for number in range(len(request.encoded))
                ]
                pending.append((request, submitted))
                if len(pending) > _BATCHES_AHEAD:
                    yield _collect(*pending.popleft())
            while pending:
                yield _collect(*pending.popleft())
        finally:
            for _, futures in pending:
                for future in futures:
                    future.cancel()

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)


def _collect(request: DecodeRequest, futures: list[Future[torch.Tensor]]) -> torch.Tensor:
    return stack([future.result() for future in futures], request)
