"""What commands print: names as they are, on any terminal, in one line."""

import errno
import io
import json
import subprocess
import sys
import warnings

import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner

from iirc_data import TaskSequence, load_benchmark, open_shards
from iirc_data.commands import benchmarks, data
from iirc_data.commands.index import index_shards
from iirc_data.commands.shard.folder import shard_folder
from iirc_data.console import (
    errors_in_one_line,
    one_line,
    plain_console,
    print_error,
    warnings_in_one_line,
)
from iirc_data.errors import ShardError
from iirc_data.interrupts import interrupted_in_one_line
from iirc_data.masking import masked
from iirc_data.shards.sharing import publish
from iirc_data.warning import warn
from tests.conftest import write_image_folder

ODD = "[red]a :smile: [b]\\"


@pytest.fixture
def odd(tmp_path):
    """A folder of images, a benchmark and a taxonomy with names that look like markup."""
    root = write_image_folder(
        tmp_path / ODD, {split: {ODD: 2, "[dim]b": 1} for split in ("train", "test")}
    )
    content = {"name": ODD, "dataset": ODD, "description": ODD, "attribution": ODD}
    content |= {"superclasses": {f"{ODD}s": [ODD]}, "other_classes": ["[dim]b"]}
    content["schedules"] = [[[f"{ODD}s", "[dim]b"], [ODD]]]
    (tmp_path / "[bold]b.json").write_text(json.dumps(content))
    return root


def printed(command, *arguments, code=0) -> str:
    app = command
    if not isinstance(app, typer.Typer):
        app = typer.Typer()
        app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_every_command_prints_names_as_they_are(odd, tmp_path):
    benchmark = tmp_path / "[bold]b.json"
    out = tmp_path / "[i]out :car:"
    output = printed(shard_folder, odd, out, "--benchmark", benchmark)
    assert f"benchmark {ODD}: all 2 leaf classes are here" in output
    assert f"{out}: " in output
    output = printed(benchmarks.app, "show", benchmark)
    assert output.count(ODD) >= 6
    assert "[dim]b" in output
    assert f"dataset {ODD}" in printed(data.app, "info", out)
    assert f"{out}: 4 shards match the manifest" in printed(data.app, "verify", out)
    copy = tmp_path / "[b]copy"
    assert f"{copy}: 4 shards" in printed(data.app, "publish", out, copy)
    assert f"{copy}: 4 shards" in printed(data.app, "pull", out, copy)
    assert f"{out}: 4 index files" in printed(index_shards, out)
    nowhere = tmp_path / "[blink]nowhere"
    assert f"error: {nowhere} does not exist" in printed(shard_folder, nowhere, out, code=1)
    assert f"error: {nowhere} does not exist" in printed(data.app, "verify", nowhere, code=1)


def test_errors_and_interruptions_are_one_line(capsys):
    print_error(ShardError("first [red]\nsecond\x1b[2J\udcea :car: " + "long " * 100))
    with pytest.raises(SystemExit), interrupted_in_one_line("resume [b]run"):
        raise KeyboardInterrupt
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(r"error: first [red] second\x1b[2J\xea :car: long")
    assert second == "interrupted: resume [b]run"


def test_a_warning_on_the_command_line_is_one_line_without_file_and_source(capsys):
    shown = warnings.showwarning
    with errors_in_one_line(), warnings_in_one_line():
        warn("first [red]\nsecond\x1b[2J " + "long " * 100)
    assert warnings.showwarning is shown
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(r"warning: first [red] second\x1b[2J long long")


def scheduled_early(images, folder):
    """Return a benchmark that schedules a superclass after its subclass, and its shards."""
    path, shards = folder / "[bold]b.json", folder / "shards"
    printed(shard_folder, images, shards)
    content = json.loads(path.read_text())
    content["schedules"] = [[[ODD, "[dim]b"], [f"{ODD}s"]]]
    path.write_text(json.dumps(content))
    return path, shards


def test_the_programs_print_warnings_of_classes_in_one_line(odd, tmp_path):
    path, shards = scheduled_early(odd, tmp_path)
    words = ["data", "show", str(shards), "--benchmark", str(path), "--output", "sheet.png"]
    result = subprocess.run(
        [sys.executable, "-m", "iirc_train", *words],
        capture_output=True,
        cwd=tmp_path,
        text=True,
        check=True,
    )
    lines = result.stderr.splitlines()
    assert f"warning: benchmark {ODD!r} schedules subclasses before their" in result.stderr
    assert all(line.startswith("warning: ") for line in lines), result.stderr


def test_in_python_a_warning_is_a_user_warning_at_the_line_of_the_caller(odd, tmp_path):
    path, shards = scheduled_early(odd, tmp_path)
    store = open_shards(shards)
    with pytest.warns(UserWarning, match="subclasses before their superclass") as caught:
        TaskSequence.from_table(load_benchmark(str(path)), store.manifest, store.table, "train")
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_terminal_is_too_poor_for_a_name(monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    with errors_in_one_line():
        plain_console().print(Text("Birke → 桦 \udcea"))
        sys.stdout.flush()
    assert raw.getvalue().startswith(b"Birke ")
    assert rb"\udcea" in raw.getvalue()


@pytest.mark.parametrize(
    "address, shown",
    [
        ("https://host/a/b?sig=x%2Fy&se=1", "https://host/a/b?…"),
        ("s3://key:secret@bucket/a", "s3://…@bucket/a"),
        ("https://u:p@host/a?sig=1", "https://…@host/a?…"),
        ("https://host/a: 403", "https://host/a: 403"),
        ("/data/a?b@c", "/data/a?b@c"),
        ("az://container/a?sig=secret", "az://container/a?…"),
    ],
)
def test_what_signs_or_logs_in_is_masked(address, shown):
    assert masked(f"cannot read {address}: no") == f"cannot read {shown}: no"
    assert masked(f"url='{address}', {address}") == f"url='{shown}', {shown}"
    assert one_line(f"{address}\n") == shown


def test_publishing_to_a_web_server_does_not_show_the_signature(tiny_store):
    with pytest.raises(ShardError, match=r"that serves https://host/a\?…$"):
        publish(tiny_store.root, "https://host/a?sig=secret")


def test_output_that_no_one_reads_any_more_ends_without_a_word():
    code = (
        "from iirc_data.console import errors_in_one_line\n"
        "import typer\n"
        "with errors_in_one_line():\n"
        "    for number in range(100_000):\n"
        "        typer.echo(f'line {number}')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"line 0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_broken_connection_is_an_error_even_though_output_is_read(capsys):
    with pytest.raises(SystemExit), errors_in_one_line():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert "Broken pipe" in capsys.readouterr().err
