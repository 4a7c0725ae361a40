"""Writing files at an address where others read them."""

from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.utils import get_protocol

from iirc_data.errors import ShardError
from iirc_data.files import write_atomically
from iirc_data.masking import masked
from iirc_data.reading import open_regular
from iirc_data.shards.addresses import CHUNK, WEB_PROTOCOLS, filesystem_at
from iirc_data.shards.parallel import BytesDone
from iirc_data.shards.remote import writing_alone


class Upload:
    """Files at an address that this program writes.

    Args:
        address: Where to copy to.
        folder: The local folder that ``address`` denotes, None if it is remote.

    Raises:
        ShardError: The address is on a web server, or fsspec does not know its protocol.
    """

    def __init__(self, address: str, folder: Path | None) -> None:
        if folder is None and get_protocol(address) in WEB_PROTOCOLS:
            raise ShardError(
                "cannot publish to a web server: publish to the folder that serves "
                f"{masked(address)}"
            )
        self._address = address.rstrip("/")
        self._local = folder
        self._filesystem, self._folder = filesystem_at(self._address)

    def _size(self, name: str) -> int | None:
        with self._explained(name), suppress(FileNotFoundError):
            size: int = self._filesystem.size(f"{self._folder}/{name}")
            return size
        return None

    def _put(self, path: Path, name: str, callback: Callback = DEFAULT_CALLBACK) -> None:
        if self._local is not None:
            self._write(path, self._local / name, callback)
            return
        target = f"{self._folder}/{name}"
        with self._explained(name):
            try:
                # unlike pipe_file, this creates missing folders, and no bucket
                self._filesystem.put_file(str(path), target, callback=callback)
            except BaseException:
                with suppress(Exception):  # of the filesystem's own types; the first one counts
                    self._filesystem.rm_file(target)
                raise

    def _put_text(self, name: str, text: bytes) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "text"
            path.write_bytes(text)
            self._put(path, name)

    def _write(self, path: Path, target: Path, callback: Callback) -> None:
        """Copy a file into a local folder, where it gets its name when it is whole."""
        with writing_alone(target), open_regular(path) as file, write_atomically(target) as copy:
            while chunk := file.read(CHUNK):
                copy.write(chunk)
                callback.relative_update(len(chunk))

    def _remove(self, name: str) -> None:
        with self._explained(name), suppress(FileNotFoundError):
            self._filesystem.rm_file(f"{self._folder}/{name}")

    def _read(self, name: str) -> bytes | None:
        with self._explained(name), suppress(FileNotFoundError):
            text: bytes = self._filesystem.cat_file(f"{self._folder}/{name}")
            return text
        return None

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except CancelledError:
            raise
        except Exception as error:  # each filesystem raises its own types
            raise ShardError(
                f"cannot publish {masked(self._address)}/{name}: {type(error).__name__}: "
                f"{masked(str(error))}"
            ) from error


class Advance(Callback):  # type: ignore[misc]  # fsspec has no types
    """Forwards the byte counts that fsspec reports."""

    def __init__(self, advance: BytesDone) -> None:
        super().__init__()
        self._advance = advance

    def relative_update(self, inc: int = 1) -> None:
        """Report bytes."""
        super().relative_update(inc)
        self._advance(inc)
