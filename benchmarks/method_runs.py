"""Runs of ``iirc train`` that the measurements of methods share."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from iirc_data.errors import ConfigurationError
from iirc_data.files import write_atomically
from iirc_train.run.directory import CONFIG_NAME

_END = "<!-- end -->"


def start_or_resume(command: str, folder: Path) -> None:
    """Start a run, or resume the run that its folder contains, on one thread.

    What the run prints is appended to ``<folder>.log``.

    Args:
        command: Command that starts the run: ``iirc train …``.
        folder: The run's folder, which is also the ``--output`` of the command.

    Raises:
        ConfigurationError: The run failed; the message has the last line that it printed.
    """
    resumes = (folder / CONFIG_NAME).exists()
    arguments = ["train", "--resume", str(folder)] if resumes else shlex.split(command)[1:]
    log = folder.with_name(f"{folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        done = subprocess.run(
            [sys.executable, "-m", "iirc_train", *arguments],
            stdout=file,
            stderr=file,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        )
    if done.returncode:
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        raise ConfigurationError(f"{folder}: exit status {done.returncode}: {last} (see {log})")


def replace_part(document: Path, program: str, lines: Iterable[str]) -> None:
    """Replace the part of a Markdown file that a program writes; the rest stays as it is.

    Args:
        document: Markdown file with a comment ``begin: written by <program>`` and a comment
            ``end``.
        program: Module that writes the part, for example ``benchmarks.methods_on_cifar10``.
        lines: The new lines between the comments.

    Raises:
        ConfigurationError: The file does not have the comments.
    """
    begin = f"<!-- begin: written by {program} -->"
    before, found, rest = document.read_text().partition(begin)
    _, ended, after = rest.partition(_END)
    if not found or not ended:
        raise ConfigurationError(f"{document} has no lines {begin!r} and {_END!r}: add both")
    text = f"{before}{begin}\n\n" + "\n".join(lines) + f"\n{_END}{after}"
    with write_atomically(document) as file:
        file.write(text.encode())
