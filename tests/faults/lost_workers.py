"""Workers of a cluster are lost while a command uses them: the result must not change."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults.campaign import ENDS_OF_KILLED, Campaign, Command, Words
from tests.faults.saboteur import NOTHING, Fate
from tests.worker_processes import Workers

FEW = 5  # losses before a command may end in peace


class LostWorkers(Campaign):
    """Fault trials of a command on a cluster, compared with its result without a cluster.

    Args:
        command: The command without a cluster.
        folder: Folder for the trials.
        seed: Random seed.
        cluster: The cluster.
    """

    def __init__(self, command: Command, folder: Path, seed: int, cluster: Workers) -> None:
        super().__init__(command, folder, seed)
        self._cluster = cluster
        words = self.command.words

        def on_cluster(out: Path) -> Words:
            entry, arguments = words(out)
            return entry, [*arguments, "--scheduler", cluster.scheduler_address]

        self.command = Command(f"{command.name} on a cluster", on_cluster, command.content)
        self._clear()
        started = time.monotonic()
        assert self._run().status == 0
        self._seconds = time.monotonic() - started

    def lose(self, n: int) -> None:
        """Lose n workers while they work, and now and then the command, too."""
        while self.tally.kills < n:
            self._clear()
            fate = NOTHING
            if self._chance.random() < 0.3:
                kind = self._chance.choice(["KILL", "TERM"])
                fate = Fate(kind, None, self._chance.uniform(0, 2 * self._seconds))
            with self._losing(min(FEW, n - self.tally.kills)):
                end = self._run(fate)
            if end.status in ENDS_OF_KILLED:
                self.tally.moments["the command"] += 1
            elif end.status:
                self._note(f"ended with {end.status}: {end.told[-600:]}")
            self._finish("after losing workers")

    @contextmanager
    def _losing(self, most: int) -> Iterator[None]:
        ended = threading.Event()
        chance = random.Random(self._chance.random())
        thread = threading.Thread(target=self._lose_some, args=(most, chance, ended))
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _lose_some(self, most: int, chance: random.Random, ended: threading.Event) -> None:
        kinds: dict[str, Callable[[str, int], None]] = {
            "killed": self._kill,
            "cut off": self._cut_off,
            "frozen": self._freeze,
        }
        scheduler = self._cluster.scheduler
        while most and not ended.wait(chance.uniform(0, self._seconds / 2)):
            working = [w for w in list(scheduler.workers.values()) if w.processing]
            if not working:
                continue
            worker = chance.choice(working)
            kind = chance.choice(["killed", "killed", "cut off", "frozen"])
            with suppress(ProcessLookupError):
                kinds[kind](worker.address, self._cluster.process_id(worker.address))
                self.tally.kills += 1
                self.tally.moments[f"a worker, {kind}"] += 1
                most -= 1

    def _kill(self, address: str, process_id: int) -> None:
        os.kill(process_id, signal.SIGKILL)

    def _cut_off(self, address: str, process_id: int) -> None:
        """Let the scheduler give the work of a worker away while the worker goes on."""
        self._cluster.sync(
            self._cluster.scheduler.remove_worker, address, stimulus_id="cut", close=False
        )

    def _freeze(self, address: str, process_id: int) -> None:
        """Let a worker wake up after its work was given away."""
        os.kill(process_id, signal.SIGSTOP)
        try:
            self._cut_off(address, process_id)
            time.sleep(0.3)
        finally:
            os.kill(process_id, signal.SIGCONT)
