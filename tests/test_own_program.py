"""A script that adds a method of its own and hands over to the command serves every command."""

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from iirc_train.report.runs import Run, group_runs
from iirc_train.run.record import is_finished, read_record
from iirc_train.runtime.program import OWN, this_program, typed_program
from tests.processes import CONTEXT

SCRIPT = """
from iirc_train.buffer.buffer import RandomBuffer
from iirc_train.cli import main
from iirc_train.config import MethodConfig
from iirc_train.methods import METHODS, MethodParts, finetune

class Model(finetune.Model):
    class Config(MethodConfig):
        strength: int = 1

    def _loss(self, step):
        assert self.config.strength in (2, 3)
        return self.config.strength * super()._loss(step)

METHODS["mine"] = MethodParts(Model, RandomBuffer)
if __name__ == "__main__":
    main()
"""


def call(script: Path, *arguments: object) -> None:
    """Run a script as ``python SCRIPT ARGUMENTS`` does."""
    sys.argv = [str(script), *map(str, arguments)]
    runpy.run_path(str(script), run_name="__main__")


def call_apart(script: Path, *arguments: object) -> int | None:
    """Run a script in a process of its own, and return its exit status."""
    process = CONTEXT.Process(target=call, args=(script, *arguments))
    process.start()
    process.join()
    return process.exitcode


def test_a_sweep_trains_the_method_of_a_script_with_a_setting_of_its_own(tiny_settings, tmp_path):
    script = tmp_path / "my iirc.py"
    script.write_text(SCRIPT)
    settings = tmp_path / "settings.yaml"
    values = {"threads": 1, "decoder": "pillow", "samples_per_class": 4}
    settings.write_text(yaml.safe_dump(tiny_settings | values))
    given = ["--config", settings, "--method", "mine", "--vary", "strength=2"]
    status = call_apart(script, "sweep", *given, "--output", tmp_path / "sweep")
    run = tmp_path / "sweep/mine/strength_2/schedule_0/seed_0"
    assert status == 0, (run / "log.txt").read_text()
    assert is_finished(run)
    assert read_record(run)["sessions"][0]["command"].startswith(f"python '{script}' train ")
    assert yaml.safe_load((run / "config.yaml").read_text())["strength"] == 2

    assert call_apart(script, "train", "--resume", run) == 0
    again = tmp_path / "again"
    assert call_apart(script, "train", "--repeat", run, "--output", again) == 0
    assert (again / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    (group,) = group_runs([Run.read(run), Run.read(again)])  # not known here, and read
    assert group.runs[0].config.values()["strength"] == 2


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Pretend that Python was started with a file, or with ``-m`` and a module's name."""

    def start(path: str, module: str | None = None, argv: str | None = None) -> str:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        main = ModuleType("__main__")
        main.__file__ = str(file)
        main.__spec__ = None if module is None else SimpleNamespace(name=module)
        monkeypatch.setitem(sys.modules, "__main__", main)
        monkeypatch.setattr(sys, "argv", [argv or str(file), "sweep"])
        return str(file)

    return start


def test_a_script_is_started_by_its_full_path(started, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = started("my.py", argv="my.py")
    assert this_program() == (script,)
    assert typed_program() == ["python", "my.py"]


@pytest.mark.parametrize(
    ("path", "module", "program"),
    [
        ("mine/extra.py", "mine.extra", ("-m", "mine.extra")),
        ("mine/__main__.py", "mine.__main__", ("-m", "mine")),
        ("iirc_train/__main__.py", "iirc_train.__main__", OWN),
        ("bin/iirc", None, OWN),
    ],
)
def test_modules_and_the_command_itself_are_started_by_name(started, path, module, program):
    started(path, module)
    assert this_program() == program
    assert typed_program() == (["iirc"] if path == "bin/iirc" else ["python", *program])


def test_other_programs_that_call_the_command_start_the_command(started):
    started("bin/pytest", argv="iirc")
    assert this_program() == OWN
    started("bin/python", argv="-c")
    assert this_program() == OWN
