"""The command as a whole: what is in it, and that it starts at once."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, create_model
from typer import Context
from typer.main import get_command
from typer.testing import CliRunner

from iirc_data.commands.make_benchmark import make
from iirc_data.errors import ConfigurationError
from iirc_train.cli import benchmarks, data, features
from iirc_train.cli.app import app, main
from iirc_train.cli.show import show
from iirc_train.config import MethodConfig
from iirc_train.methods import METHODS, MethodParts, finetune

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "demo",
    "benchmarks",
    "data",
    "presets",
    "features",
    "train",
    "sweep",
    "report",
    "compare",
    "doctor",
)


def invoke(*arguments: str):
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, arguments)


def test_help_lists_every_command_with_what_it_does():
    shown = invoke("--help").output
    for name in COMMANDS:
        assert f" {name} " in shown
    for text in ("data pipeline first", "Train a method", "one HTML page", "sharded datasets"):
        assert text in shown


def test_the_version_is_that_of_the_package():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    result = invoke("--version")
    assert (result.exit_code, result.output) == (0, f"iirc-pipeline {declared}\n")
    assert f"version: {declared}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {declared} - 20" in (ROOT / "CHANGELOG.md").read_text()


def test_help_of_data_lists_the_look_at_what_training_sees_with_the_rest():
    shown = invoke("data", "--help").output
    for name in ("info", "verify", "publish", "pull", "digest", "shard", "index", "show"):
        assert f" {name} " in shown
    assert show.__doc__.splitlines()[0] in shown


def test_help_of_benchmarks_says_what_make_does():
    shown = invoke("benchmarks", "--help").output
    assert make.__doc__.splitlines()[0] in shown and " show " in shown


class Drifting(finetune.Model):
    class Config(MethodConfig):
        n_drifts: Annotated[int, Field(ge=0, description="How often it drifts")] = 3
        lucir_lambda: float = 1.0


def test_help_lists_the_settings_of_a_method_that_a_script_added(monkeypatch):
    monkeypatch.setitem(METHODS, "drifting", MethodParts(Drifting, finetune.Buffer))
    for name in ("train", "sweep"):
        shown = invoke(name, "--help").output
        heading, _, settings = shown.partition("Settings of drifting ")
        assert "Settings of lucir, drifting " in heading
        assert heading.rindex("--lucir-lambda") > heading.index("Settings of lucir, drifting ")
        number = "(<int>|INTEGER)"  # the latter in older releases of typer
        assert re.search(rf"--n-drifts +{number} +How often it drifts\. \[default: 3\]", settings)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("seed", "'seed', but every configuration already has that name"),
        ("dataset_", None),
        ("tasks_configuration_id", "every configuration already has that name"),
        ("output", "'output', but the command already has an option"),
    ],
)
def test_a_setting_of_a_method_may_not_take_the_name_of_another(monkeypatch, name, problem):
    config = create_model("Config", __base__=MethodConfig, **{name: (int, 1)})
    model = type("Model", (finetune.Model,), {"Config": config})
    monkeypatch.setitem(METHODS, "mine", MethodParts(model, finetune.Buffer))
    result = invoke("train", "--help")
    if problem is None:
        assert result.exit_code == 0
    else:
        assert isinstance(result.exception, ConfigurationError)
        assert problem in str(result.exception)


def test_an_unknown_command_is_an_error_of_usage():
    result = invoke("trian")
    assert result.exit_code == 2
    assert "trian" in result.output


def test_commands_for_data_start_without_torch_and_zarr_and_the_list_of_benchmarks_without_shards():
    code = (
        "import sys; from iirc_train.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "sys.exit(bool({'torch', 'zarr'} & sys.modules.keys()) or "
        "sys.argv[1:] == ['benchmarks'] and 'iirc_data.shards' in sys.modules)"
    )
    for arguments in (
        ["--help"],
        ["benchmarks"],
        ["data", "--help"],
        ["data", "shard", "folder", "--help"],
        ["features", "--help"],
    ):
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)


@pytest.mark.parametrize("group", [app, data.app, features.app, benchmarks.app])
def test_a_list_of_commands_says_of_each_what_its_own_help_says(group):
    commands = get_command(group)
    context = Context(commands)
    for name, summary in commands.summaries.items():
        own_help = commands.get_command(context, name).help
        assert own_help.split("\n\n")[0] == summary


@pytest.mark.parametrize("width", [60, 200])
def test_paragraphs_of_help_fill_the_lines_of_the_terminal(width):
    shown = CliRunner(env={"COLUMNS": f"{width}"}).invoke(app, ["train", "--help"]).output
    text = shown.partition("Settings come from")[2].partition("resumes it.")[0]
    *full, _ = text.splitlines()
    assert all(len(line) > width - 20 for line in full[1:])
    assert len(full) == {60: 4, 200: 1}[width]


def test_a_current_folder_that_was_removed_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr("sys.argv", ["iirc", "benchmarks"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: the current folder was removed")
