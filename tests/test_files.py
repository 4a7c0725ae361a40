"""Writing and locking on file systems that lack something: folders to sync, flock, long names."""

import errno
import fcntl
import os
import signal
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from iirc_data import files, locks
from iirc_data.errors import InUseError
from iirc_data.files import (
    hidden_neighbour,
    remove_partial_files,
    remove_partial_files_of,
    sync_folder,
    sync_tree,
    write_atomically,
)
from iirc_data.locks import sole_user, sole_writer_of
from tests.processes import CONTEXT

CANNOT_SYNC_FOLDERS = ["EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EBADF", "EACCES", "EPERM"]
REAL_FAILURES = ["EIO", "ENOSPC", "EDQUOT", "EROFS"]


def fail_for(monkeypatch, name: str, kind) -> None:
    """Let fsync of a kind of file fail."""
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if kind(os.fstat(descriptor).st_mode):
            raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)


@pytest.mark.parametrize("name", CANNOT_SYNC_FOLDERS)
def test_a_file_system_that_cannot_sync_folders_serves(tmp_path, monkeypatch, name):
    fail_for(monkeypatch, name, stat.S_ISDIR)
    for content in (b"first", b"second"):
        with write_atomically(tmp_path / "new" / "file") as file:
            file.write(content)
    sync_tree(tmp_path)
    assert (tmp_path / "new" / "file").read_bytes() == b"second"


@pytest.mark.parametrize("name", ["EINVAL", "ENOTSUP", "ENOSYS"])
def test_a_file_system_that_cannot_sync_files_serves(tmp_path, monkeypatch, name):
    fail_for(monkeypatch, name, stat.S_ISREG)
    with write_atomically(tmp_path / "file") as file:
        file.write(b"content")
    sync_tree(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize("kind", [stat.S_ISDIR, stat.S_ISREG], ids=["folder", "file"])
@pytest.mark.parametrize("name", REAL_FAILURES)
def test_a_disk_that_is_full_or_broken_is_an_error(tmp_path, monkeypatch, name, kind):
    (tmp_path / "file").write_bytes(b"before")
    fail_for(monkeypatch, name, kind)
    with (
        pytest.raises(OSError, match=os.strerror(getattr(errno, name))),
        write_atomically(tmp_path / "file") as file,
    ):
        file.write(b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(OSError, match=os.strerror(getattr(errno, name))):
        sync_tree(tmp_path)


def test_a_file_that_is_not_open_is_an_error(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        descriptor = file.fileno()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        files.sync_file(descriptor)


def test_a_folder_that_may_not_be_listed_or_is_missing(tmp_path, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "missing")
    monkeypatch.setattr(os, "open", refuse)
    sync_folder(tmp_path)


def test_the_names_of_new_folders_reach_the_disk_too(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync

    def watched(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    with write_atomically(tmp_path / "a" / "b" / "file") as file:
        file.write(b"content")
    folders = [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    assert {path.stat().st_ino for path in folders} <= set(synced)


@pytest.mark.parametrize("host", ["", "a/b", "../../up", "hôte", "x" * 300, "bad\udcff", "a\nb"])
@pytest.mark.parametrize("name", ["x", "é" * 127, "n" * 255, "[*]?", ".hidden"])
def test_every_name_can_be_written_on_every_host(tmp_path, monkeypatch, name, host):
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    path = tmp_path / name
    with pytest.raises(RuntimeError), write_atomically(path) as file:
        (partial,) = tmp_path.iterdir()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    for remove in (lambda: remove_partial_files_of(path), lambda: remove_partial_files(tmp_path)):
        with write_atomically(path) as file:
            file.write(b"content")
        other = hidden_neighbour(tmp_path / "other", "host-1.partial")
        for left in (partial, other):
            left.touch()
        remove()
        left = {found.name for found in tmp_path.iterdir()} - {name}
        assert left <= {other.name}
        assert path.read_bytes() == b"content"


def test_threads_that_write_one_file_leave_one_of_their_contents(tmp_path):
    path = tmp_path / "file"
    together = threading.Barrier(2)
    errors = []

    def write(letter: bytes) -> None:
        try:
            with write_atomically(path) as file:
                together.wait()
                file.write(letter * 1000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert path.read_bytes() in (b"a" * 1000, b"b" * 1000)
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


# --- locks --------------------------------------------------------------------------------------

FLOCKS = ["works", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL"]
WITHOUT_FLOCK = FLOCKS[1:]


def set_flock(name: str) -> None:
    """Let flock answer as on a file system that lacks it."""

    def refuse(*arguments: object) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    if name != "works":
        fcntl.flock = refuse


@pytest.fixture(params=FLOCKS)
def flock(request, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", fcntl.flock)  # put back at the end
    set_flock(request.param)
    return request.param


def hold(folder: Path, flock: str, kill: bool, is_held) -> None:
    set_flock(flock)
    with sole_user(folder):
        if kill:
            os.kill(os.getpid(), signal.SIGKILL)
        is_held.set()
        time.sleep(60)


def lock_file(folder: Path) -> Path:
    (path,) = (path for path in folder.iterdir() if path.name.startswith(".lock"))
    return path


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path, flock):
    is_held = CONTEXT.Event()
    process = CONTEXT.Process(target=hold, args=(tmp_path, flock, True, is_held))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert lock_file(tmp_path).exists()
    with sole_user(tmp_path):
        pass
    assert not tmp_path.exists()  # nothing is left in it, so the folder goes too


def test_a_living_process_is_named(tmp_path, flock):
    is_held = CONTEXT.Event()
    process = CONTEXT.Process(target=hold, args=(tmp_path, flock, False, is_held))
    process.start()
    is_held.wait(30)
    for _ in range(2):  # asking changes nothing
        with pytest.raises(InUseError) as told, sole_user(tmp_path):
            pass
        who = f"process {process.pid} on {socket.gethostname()}"
        assert str(told.value).startswith(f"{tmp_path} is in use by {who}: wait for it")
    process.kill()
    process.join()
    with sole_user(tmp_path):
        assert list(tmp_path.iterdir()) == [lock_file(tmp_path)]


@pytest.mark.parametrize("name", WITHOUT_FLOCK)
def test_the_lock_of_another_host_is_never_taken(tmp_path, monkeypatch, name):
    monkeypatch.setattr(fcntl, "flock", fcntl.flock)
    set_flock(name)
    with sole_user(tmp_path):
        path = lock_file(tmp_path)
    tmp_path.mkdir()
    path.write_text("2147483000\nelsewhere\n123\n")
    with pytest.raises(InUseError) as told, sole_user(tmp_path):
        pass
    assert str(told.value) == (
        f"{tmp_path} is in use by process 2147483000 on elsewhere: wait for it, or give another "
        f"folder; if that process has ended, remove {path}"
    )
    path.unlink()
    with sole_user(tmp_path):
        pass


def test_one_at_a_time_holds_a_folder_however_many_want_it(tmp_path, flock):
    folder = tmp_path / "run"
    inside: list[int] = []
    crowds: list[int] = []
    held = [0] * 4
    end = time.monotonic() + 0.4

    def work(number: int) -> None:
        while time.monotonic() < end:
            try:
                with sole_user(folder):
                    inside.append(number)
                    time.sleep(0)
                    crowds.append(len(inside))
                    inside.remove(number)
                    held[number] += 1
            except InUseError:
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(crowds) == {1}
    assert sum(held) > 10
    assert not folder.exists()


def test_one_at_a_time_writes_a_file_and_the_others_wait(tmp_path, flock):
    inside: list[int] = []
    crowds: list[int] = []

    def work(number: int) -> None:
        for _ in range(3):
            with sole_writer_of(tmp_path / "file"):
                inside.append(number)
                time.sleep(0.001)
                crowds.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert crowds == [1] * 9
    assert list(tmp_path.iterdir()) == []


def hold_file(path: Path, flock: str) -> None:
    set_flock(flock)
    with sole_writer_of(path):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_file_whose_writer_was_killed_is_not_waited_for(tmp_path, flock):
    process = CONTEXT.Process(target=hold_file, args=(tmp_path / "file", flock))
    process.start()
    process.join()
    assert [path.name for path in tmp_path.iterdir()] == [".file.lock"]
    with sole_writer_of(tmp_path / "file"):
        pass


def test_a_file_that_another_host_holds_is_not_waited_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", fcntl.flock)
    monkeypatch.setattr("iirc_data.locks._LONGEST_WAIT", 0.1)
    set_flock("ENOTSUP")
    lock = tmp_path / ".file.lock"
    lock.write_text("2147483000\nelsewhere\n123\n")
    with pytest.raises(InUseError) as told, sole_writer_of(tmp_path / "file"):
        pass
    assert "is in use by process 2147483000 on elsewhere: wait for it" in str(told.value)
    assert str(told.value).endswith(f"if that process has ended, remove {lock}")


def test_a_lock_that_cannot_say_who_holds_it_still_holds(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)
    with (
        sole_user(tmp_path),
        pytest.raises(InUseError, match="is in use by another process"),
        sole_user(tmp_path),
    ):
        pass


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    def refused(dir):
        raise OSError(errno.EROFS, "Read-only file system", str(dir / "tmp123"))

    monkeypatch.setattr(locks, "TemporaryFile", refused)
    with pytest.raises(OSError, match="Read-only") as raised, sole_user(tmp_path):
        pass
    assert raised.value.filename == str(tmp_path)
