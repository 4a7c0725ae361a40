"""Trying to decode windows in another process, which may die, hang or return wrong pixels."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from iirc_data.loader import window_probe
from iirc_data.loader.window_probe import WindowDecoding, window_decoding

GPU = torch.device("cuda", 0)
NOTED = "import sys; open(sys.argv[1], 'a').write('tried\\n'); "
SEGFAULT = NOTED + "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


class Pretended:
    """A GPU that is not there, and what the other process does."""

    def __init__(self, folder, monkeypatch):
        self.cache, self.notes = folder / "cache", folder / "notes"
        self.does, self.driver = NOTED, "1.0"
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("IIRC_CACHE", str(self.cache))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(
            window_probe, "_situation", lambda device, load: {"driver": self.driver, "load": load}
        )
        monkeypatch.setattr(window_probe, "_command", lambda *_: self.command)
        self.in_a_new_process()

    @property
    def command(self):
        return [sys.executable, "-S", "-E", "-c", self.does, str(self.notes)]

    def in_a_new_process(self):
        self._monkeypatch.setattr(window_probe, "_known", {})

    def trials(self):
        return len(self.notes.read_text().splitlines()) if self.notes.exists() else 0


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    return Pretended(tmp_path, monkeypatch)


def test_the_result_is_kept_for_later_processes(pretended):
    assert window_decoding(GPU).works
    pretended.does = SEGFAULT
    for _ in range(2):
        pretended.in_a_new_process()
        assert window_decoding(GPU) == window_decoding(GPU) == WindowDecoding(True, kept(pretended))
    assert pretended.trials() == 1


def kept(pretended):
    (path,) = pretended.cache.rglob("*.json")
    return json.loads(path.read_text())["reason"]


@pytest.mark.parametrize(
    ("does", "reason", "lasts"),
    [
        (SEGFAULT, "SIGSEGV", True),
        (SEGFAULT.replace("SEGV", "KILL"), "SIGKILL", False),
        (NOTED + "print('windows differ'); sys.exit(3)", "windows differ", True),
        (NOTED + "print('no memory'); sys.exit(5)", "no memory", False),
        (NOTED + "sys.exit(7)", "exit status 7", True),
        (NOTED + "raise ModuleNotFoundError('DALI')", "ModuleNotFoundError: DALI", True),
    ],
)
def test_a_process_that_fails_means_whole_images(pretended, does, reason, lasts, monkeypatch):
    pretended.does = does
    found = window_decoding(GPU)
    assert not found.works
    assert reason in found.reason
    assert "\n" not in found.reason
    pretended.in_a_new_process()
    monkeypatch.setattr(window_probe.time, "time", lambda now=window_probe.time.time: now() + 4000)
    assert window_decoding(GPU) == found
    assert pretended.trials() == (1 if lasts else 2)


def test_a_process_that_hangs_is_ended(pretended, monkeypatch):
    pretended.does = NOTED + "import time; time.sleep(600)"
    monkeypatch.setattr(window_probe, "_TIMEOUT", 0.3)
    found = window_decoding(GPU)
    assert found == WindowDecoding(False, "a trial took longer than 0.3 s")


def test_wrong_pixels_are_found(monkeypatch, capsys):
    pytest.importorskip("nvidia.dali")
    from iirc_data.loader.window_trial import WindowTrial

    assert window_probe.main("cpu", "0") == 0
    windows = WindowTrial._windows

    def shifted(self):
        """Pillow cuts out the window that is asked for, the decoder one beside it."""
        for images, window in windows(self):
            yield images, window.clip(1, None)

    decoded = WindowTrial._decoded
    monkeypatch.setattr(
        WindowTrial,
        "_decoded",
        lambda self, pipeline, images, window: decoded(
            self, pipeline, images, None if window is None else window - [0, 1, 0, 0]
        ),
    )
    monkeypatch.setattr(WindowTrial, "_windows", shifted)
    assert window_probe.main("cpu", "0") == 3
    assert "of 255 levels" in capsys.readouterr().out


def test_a_machine_that_decodes_nothing_proves_nothing(monkeypatch, capsys):
    pytest.importorskip("nvidia.dali")
    from iirc_data.loader.window_trial import WindowTrial

    def fails(self):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(WindowTrial, "decode_whole_images", fails)
    assert window_probe.main("cpu", "0") == 5
    assert capsys.readouterr().out == "RuntimeError: out of memory\n"


def test_another_situation_and_a_request_try_again(pretended):
    window_decoding(GPU)
    pretended.driver = "2.0"
    pretended.does = SEGFAULT
    assert not window_decoding(GPU).works
    pretended.does = NOTED
    assert not window_decoding(GPU).works
    assert window_decoding(GPU, hw_decoder_load=0.5).works
    assert window_decoding(GPU, again=True).works
    assert pretended.trials() == 4


def test_processes_that_ask_at_the_same_time_wait_for_one_trial(pretended, monkeypatch):
    pretended.does = NOTED + "import time; time.sleep(0.2)"

    class Forgetful(dict):
        """As in processes that know nothing of each other."""

        def __contains__(self, name):
            return False

    monkeypatch.setattr(window_probe, "_known", Forgetful())
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: window_decoding(GPU), range(8)))
    assert all(works for works, _ in found)
    assert pretended.trials() == 1


@pytest.mark.parametrize("content", [b"", b"[]", b'{"works": 1}', b"\xff", b"null"])
def test_a_damaged_file_is_replaced(pretended, content):
    window_decoding(GPU)
    (path,) = pretended.cache.rglob("*.json")
    before = path.read_bytes()
    path.write_bytes(content)
    pretended.in_a_new_process()
    assert window_decoding(GPU).works
    assert path.read_bytes() == before
    assert pretended.trials() == 2


def test_without_a_place_for_the_result_it_is_tried_in_every_process(pretended):
    pretended.cache.write_text("a file")
    for count in (1, 2):
        pretended.in_a_new_process()
        assert window_decoding(GPU).works
        assert window_decoding(GPU).works
        assert pretended.trials() == count


def test_nothing_is_tried_without_a_gpu(monkeypatch):
    monkeypatch.setattr(window_probe, "_tried", None)
    assert window_decoding(torch.device("cpu")).works
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not window_decoding(torch.device("cuda"), again=True).works


def test_the_result_depends_on_versions_gpu_and_load(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    one = window_probe._situation(GPU, 0.0)
    assert one["gpu"] == "GPU 0"
    assert any(name.startswith("nvidia-dali") for name in one["versions"])
    assert one != window_probe._situation(torch.device("cuda", 1), 0.0)
    assert one != window_probe._situation(GPU, 0.5)
    command = window_probe._command(GPU, 0.5)
    assert command[1:] == ["-m", "iirc_data.loader.window_probe", "cuda:0", "0.5"]
