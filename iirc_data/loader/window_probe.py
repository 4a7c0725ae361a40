"""Whether a GPU decodes windows of JPEGs, tried in a process of its own.

Some versions of nvImageCodec end the process when they decode a window on some GPUs
(https://github.com/NVIDIA/nvImageCodec/issues/55), which Python cannot catch.
"""

import json
import logging
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

import torch

from iirc_data.errors import InUseError, ShardError
from iirc_data.files import canonical_json, make_folder, write_json
from iirc_data.loader.decoder import with_number
from iirc_data.locks import sole_writer_of
from iirc_data.reading import read_regular
from iirc_data.shards.remote import cache_base

logger = logging.getLogger(__name__)

_FORMAT = 1  # of the file, and of what the other process tries
_TIMEOUT = 120.0  # seconds; the other process imports torch and DALI
_RETRY_AFTER = 3600.0  # seconds after a failure that may have another cause
_LARGEST_DIFFERENCE = 2.0  # of 255 levels on average; JPEG decoders may round differently
_TO_REAP = 5.0  # seconds
_WRONG, _NO_PROOF = 3, 5  # exit statuses: windows fail; not even whole images are decoded
_PROVING_SIGNALS = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}

_known: dict[str, "WindowDecoding"] = {}


class WindowDecoding(NamedTuple):
    """Whether a device decodes windows of images.

    Attributes:
        works: Windows are decoded, and have the right pixels.
        reason: How this was found, or what happened instead.
    """

    works: bool
    reason: str


def window_decoding(
    device: torch.device, *, again: bool = False, hw_decoder_load: float = 0.0
) -> WindowDecoding:
    """Return whether DALI decodes windows of JPEGs on a device.

    On a GPU, another process tries it, once for each machine, GPU, driver and version; the result
    is kept in the cache folder. Processes that ask at the same time wait for one trial.

    Args:
        device: The device that decodes.
        again: Try it again, whatever is known.
        hw_decoder_load: See :func:`~iirc_data.loader.make.make_decoder`.
    """
    if device.type != "cuda":
        return WindowDecoding(True, "decoded on the CPU")
    if not torch.cuda.is_available():
        return WindowDecoding(False, "torch sees no GPU")
    device = with_number(device)
    situation = _situation(device, hw_decoder_load)
    name = sha256(canonical_json(situation)).hexdigest()
    if again or name not in _known:
        with _sole_prober(name) as path:
            found = None if again else _read(path, situation)
            if found is None:
                logger.info("another process tries to decode windows of images on %s", device)
                found, lasts = _tried(_command(device, hw_decoder_load), _TIMEOUT)
                until = None if lasts else time.time() + _RETRY_AFTER
                _write(path, situation, found, until)
        _known[name] = found
    return _known[name]


def _situation(device: torch.device, hw_decoder_load: float) -> dict[str, Any]:
    """Return what the result depends on."""
    driver = ""
    with suppress(OSError):
        driver = Path("/proc/driver/nvidia/version").read_text(errors="replace").partition("\n")[0]
    prefixes = "nvidia-dali", "nvidia-nvimgcodec", "nvidia-nvjpeg"
    versions = {
        name: found.version
        for found in distributions()
        if (name := found.metadata["Name"] or "").startswith(prefixes)
    }
    return {
        "format": _FORMAT,
        "machine": platform.node(),
        "gpu": torch.cuda.get_device_name(device),
        "driver": driver,
        "versions": dict(sorted(versions.items())),
        "hw_decoder_load": hw_decoder_load,
    }


def _command(device: torch.device, hw_decoder_load: float) -> list[str]:
    return [sys.executable, "-m", __name__, str(device), str(hw_decoder_load)]


def _tried(command: list[str], timeout: float) -> tuple[WindowDecoding, bool]:
    """Run the other process; return the result, and whether it would be the same again."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    process = subprocess.Popen(
        command,
        env=environment,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return WindowDecoding(False, f"a trial took longer than {timeout:g} s"), False
    finally:
        if process.poll() is None:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # a driver may hold it for longer
                process.communicate(timeout=_TO_REAP)
    if process.returncode == 0:
        return WindowDecoding(True, "tried: the pixels are right"), True
    if process.returncode < 0:
        number = -process.returncode
        with suppress(ValueError):
            number = signal.Signals(number)
        name = getattr(number, "name", f"signal {number}")
        return WindowDecoding(False, f"a trial died of {name}"), number in _PROVING_SIGNALS
    said = output.strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
    return WindowDecoding(False, f"a trial failed: {said[0]}"), process.returncode != _NO_PROOF


@contextmanager
def _sole_prober(name: str) -> Iterator[Path | None]:
    """Hold the file of a result; None if there is no place for it."""
    path = None
    with ExitStack() as held:
        with suppress(OSError, ShardError, InUseError):
            place = cache_base() / "window_decoding" / f"{name}.json"
            make_folder(place.parent)
            held.enter_context(sole_writer_of(place))
            path = place
        yield path


def _read(path: Path | None, situation: dict[str, Any]) -> WindowDecoding | None:
    if path is None:
        return None
    try:
        kept = json.loads(read_regular(path))
        works, reason, until = kept["works"], kept["reason"], kept["until"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if kept.get("situation") != situation or not isinstance(works, bool):
        return None
    if until is not None and not time.time() < until < time.time() + 2 * _RETRY_AFTER:
        return None
    return WindowDecoding(works, str(reason))


def _write(
    path: Path | None, situation: dict[str, Any], found: WindowDecoding, until: float | None
) -> None:
    if path is not None:
        with suppress(OSError):  # then the next process tries again
            write_json(path, {"situation": situation, **found._asdict(), "until": until})


def main(device: str, hw_decoder_load: str) -> int:
    """Try it in this process; write one line, and return the exit status."""
    status, line = _trial(torch.device(device), float(hw_decoder_load))
    sys.stdout.write(f"{line}\n")
    return status


def _trial(device: torch.device, hw_decoder_load: float) -> tuple[int, str]:
    from iirc_data.loader.window_trial import WindowTrial

    status = _NO_PROOF
    try:
        trial = WindowTrial(device, hw_decoder_load)
        trial.decode_whole_images()
        status = _WRONG
        difference = trial.largest_difference()
    except Exception as error:
        return status, f"{type(error).__name__}: {' '.join(str(error).split())}"
    line = f"windows differ from Pillow's by {difference:.2f} of 255 levels on average"
    return 0 if difference <= _LARGEST_DIFFERENCE else _WRONG, line


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
