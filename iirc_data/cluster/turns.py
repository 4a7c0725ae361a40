"""Taking turns: beside others, or alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Lets coroutines work at the same time, except those that must work alone."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._working = 0
        self._is_one_alone = False

    @asynccontextmanager
    async def take(self, *, alone: bool) -> AsyncIterator[None]:
        """Wait for a turn, and keep it inside the block.

        Args:
            alone: Wait until no other coroutine works, and let no other work.
        """
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._is_one_alone and not (alone and self._working)
            )
            self._working += 1
            self._is_one_alone = alone
        try:
            yield
        finally:
            # before anything is awaited: the coroutine may be cancelled there
            self._working -= 1
            self._is_one_alone = False
            async with self._changed:
                self._changed.notify_all()
