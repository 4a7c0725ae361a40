"""Runs the code blocks of README and documentation, as written, on small drawn images.

A block that is expensive or needs external data carries a comment, ``<!-- not run: reason -->``.
Its commands are only parsed: commands, options, settings, presets and benchmarks exist.
"""

import importlib.util
import json
import re
import runpy
import shlex
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from iirc_data.benchmarks import load_benchmark
from iirc_data.shards import write_shards
from iirc_data.sources.drawn import DrawnSource
from iirc_train.cli import app as cli
from iirc_train.config.compose import compose
from iirc_train.methods import METHODS, MethodParts
from iirc_train.methods.settings import method_configs
from iirc_train.metrics import METRICS
from iirc_train.metrics.levels import LEVEL_METRICS
from tests.conftest import write_image_folder
from tools import shard_cifar, shard_folder, shard_imagenet

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
TOOLS = {
    "tools/shard_cifar.py": shard_cifar,
    "tools/shard_folder.py": shard_folder,
    "tools/shard_imagenet.py": shard_imagenet,
}
# pages with measurements: their commands take hours, or the whole machine
NOT_RUN = {
    "docs/performance.md",
    "docs/results_cifar10.md",
    "docs/results_cifar100.md",
    "docs/results_frozen.md",
    "docs/results_iirc_cifar100.md",
    "docs/results_three_levels.md",
    "docs/weak_replay.md",
}
# enough training to show that a command works
SHORT = "--epochs-per-task 1 --samples-per-class 3 --batch-size 16 --checkpoint-interval 0"

FENCE = re.compile(
    r"(?P<mark><!-- not run: [^\n]+ -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    language: str
    title: str | None
    text: str
    is_run: bool

    @property
    def is_shell(self) -> bool:
        return self.language in ("sh", "bash")

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command line, with continued lines joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks_of(page: Path) -> list[Block]:
    is_run = str(page.relative_to(ROOT)) not in NOT_RUN
    return [
        Block(
            found["language"],
            found["title"],
            textwrap.dedent(found["text"]),
            is_run and not found["mark"],
        )
        for found in FENCE.finditer(page.read_text())
    ]


def block_named(page: str, title: str) -> Block:
    return next(block for block in blocks_of(DOCS / page) if block.title == title)


def the_iirc_command():
    return typer.main.get_command(cli.app)


def the_tools_command(tool):
    app = typer.Typer()
    app.command()(tool.main)
    return typer.main.get_command(app)


def command_of(words: list[str]):
    """Return the command of this project that a line calls, and its arguments, or None."""
    if words[0] == "torchrun" and "iirc_train" in words:
        return the_iirc_command(), words[words.index("iirc_train") + 1 :]
    if words[0] == "iirc":
        return the_iirc_command(), words[1:]
    if words[0] == "python" and words[1] in TOOLS:
        return the_tools_command(TOOLS[words[1]]), words[2:]
    return None


def parse(command, arguments: list[str]):
    """Parse a command line without running it; raise an error if it is wrong."""
    while hasattr(command, "list_commands") and arguments:
        context = typer.Context(command)
        assert arguments[0] in command.list_commands(context), (
            f"there is no command {arguments[0]!r}"
        )
        command, arguments = command.get_command(context, arguments[0]), arguments[1:]
    return command.make_context(command.name, list(arguments))


def check(words: list[str]) -> None:
    found = command_of(words)
    if found is None:
        assert words[0] not in ("iirc", "tools"), words
        return
    settings = {name: value for name, value in parse(*found).params.items() if value}
    if settings.get("benchmark") and not str(settings["benchmark"]).endswith(".json"):
        load_benchmark(settings["benchmark"])
    if "train" in words and settings.keys().isdisjoint({"resume", "repeat", "parent"}):
        options = [settings.pop(name, None) for name in ("preset", "config", "output")]
        method = settings.pop("method", None)
        settings["method"] = method or "finetune"
        compose(options[0], None, settings, methods=method_configs())


def run(words: list[str]) -> None:
    """Run a command line in this process, with shortened training."""
    words = [*words, *short_training(words)]
    found = command_of(words)
    if found is not None:
        command, arguments = found
        command(arguments, standalone_mode=False)
    else:
        assert words[0] == "python" and Path(words[1]).exists(), f"cannot run {words}"
        sys.argv = words[1:]
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(words[1], run_name="__main__")
        assert not ended.value.code


def short_training(words: list[str]) -> list[str]:
    if "train" not in words or not {"--resume", "--repeat", "--from"}.isdisjoint(words):
        return []
    return SHORT.split()


@pytest.fixture(scope="module")
def drawn_shards(tmp_path_factory) -> Path:
    shards = tmp_path_factory.mktemp("drawn") / "shards"
    write_shards(DrawnSource(train=12, test=3), shards)
    return shards


@pytest.fixture
def reader(tmp_path, drawn_shards, monkeypatch) -> Iterator[Path]:
    """A folder with the files that a reader has by now; methods and metrics are restored."""
    for name in ("shards/cifar10", "demo/shards"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(drawn_shards)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    known = [(table, dict(table)) for table in (METHODS, METRICS, LEVEL_METRICS)]
    yield tmp_path
    for table, before in known:
        table.clear()
        table.update(before)


def prepare(page: str, folder: Path) -> None:
    """Create the files that a page assumes, other than the drawn shards."""
    if page == "docs/own_dataset.md":
        (folder / "shards/cifar10").unlink()
        classes = ("beagle", "oak", "rose", "whippet")
        # too few for validation images, because ImageNet's network is slow on a CPU
        counts = {"train": dict.fromkeys(classes, 9), "test": dict.fromkeys(classes, 1)}
        write_image_folder(folder / "photographs", counts)
        drawn = {"train": {"oak": 9, "whippet": 9}, "test": {"oak": 1, "whippet": 1}}
        write_image_folder(folder / "drawings", drawn, height=48, width=40)
    if page == "docs/own_method.md":
        add_balanced_replay()


def add_balanced_replay() -> None:
    """Add the method of a page by the file and the line that are shown there."""
    block = block_named("own_method.md", "iirc_train/methods/balanced_replay.py")
    spec = importlib.util.spec_from_loader("balanced_replay", loader=None)
    module = importlib.util.module_from_spec(spec)
    exec(block.text, module.__dict__)
    lines = [block.text.strip() for block in blocks_of(DOCS / "own_method.md")]
    assert '"balanced_replay",' in lines
    METHODS["balanced_replay"] = MethodParts(module.Model, module.Buffer)


@pytest.mark.filterwarnings("ignore:.*rounds to 0", "ignore:.*'mode' parameter is deprecated")
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_blocks_do_what_the_page_says(page, reader, capsys):
    prepare(str(page.relative_to(ROOT)), reader)
    namespace: dict[str, object] = {"__name__": "documentation"}
    for block in blocks_of(page):
        if block.title is not None:
            path = reader / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.is_shell:
            for words in block.commands:
                check(words)
                if block.is_run:
                    run(words)
        elif block.language == "python":
            code = compile(block.text, f"{page.name}: {block.text.splitlines()[0]}", "exec")
            if block.is_run:
                capsys.readouterr()
                exec(code, namespace)
                printed = capsys.readouterr().out.splitlines()
                for promised in re.findall(r"# prints (.+)", block.text):
                    assert promised in printed


@pytest.mark.filterwarnings("ignore:.*rounds to 0")
def test_a_method_takes_as_many_lines_as_said(reader):
    text = (DOCS / "own_method.md").read_text()
    block = block_named("own_method.md", "iirc_train/methods/balanced_replay.py")
    lines = [line for line in block.text.splitlines() if line.strip()]
    assert f"A file of {len(lines)} lines (blank ones not counted)" in text

    add_balanced_replay()
    command = next(
        words
        for b in blocks_of(DOCS / "own_method.md")
        if b.is_shell
        for words in b.commands
        if "balanced_replay" in words
    )
    run(command)
    assert (reader / "runs/balanced_replay/checkpoints/last.pt").exists()
    assert "rarity_power: 0.5\n" in (reader / "runs/balanced_replay/config.yaml").read_text()


def test_existing_methods_have_as_many_lines_as_said():
    sizes = [
        len((ROOT / "iirc_train/methods" / f"{name}.py").read_text().splitlines())
        for name in METHODS
    ]
    said = f"between {min(sizes)} and {max(sizes)} lines"
    assert said in (DOCS / "own_method.md").read_text()


def test_a_dataset_takes_as_many_lines_as_said():
    text = " ".join((DOCS / "own_dataset.md").read_text().split())
    taxonomy = block_named("own_dataset.md", "taxonomy.json").text
    benchmark = block_named("own_dataset.md", "photographs.json").text
    said = f"a taxonomy of {len(taxonomy.splitlines())} lines, or a benchmark of "
    assert f"{said}{len(benchmark.splitlines())}, one command, and no Python" in text
    assert json.loads(taxonomy) == json.loads(benchmark)["superclasses"]


def test_every_preset_has_its_row_in_the_table_of_curves():
    text = (DOCS / "reproducing.md").read_text()
    presets = {path.stem for path in (ROOT / "iirc_train/config/presets").glob("*.yaml")}
    assert set(re.findall(r"^\| `([\w.-]+)` \|", text, re.MULTILINE)) == presets


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "UPGRADING.md", "CHANGELOG.md"])
def test_links_of_pages_outside_docs_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)", (ROOT / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def exists(path: Path) -> bool:
    """Whether a folder, a file, or a module without its ending exists."""
    return path.exists() or path.with_suffix(".py").exists()


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md", "UPGRADING.md"])
def test_files_and_names_that_a_page_mentions_exist(page):
    text = " ".join((ROOT / page).read_text().split())
    places = re.findall(
        r"\b(?:iirc_data|iirc_train|tests|tools|manifests|benchmarks)/[\w/.]*", text
    )
    missing = {place for place in places if not exists(ROOT / place.rstrip("."))}
    assert missing == {"tests/test_NAME.py"} & set(places)
    for name, place in re.findall(r"`([\w.]+)` in `([\w/]+\.py)`", text):
        source = (ROOT / place).read_text()
        for part in name.split("."):
            defined = rf"^ *(?:def|class) {part}\b|^{part}\b.* = "
            assert re.search(defined, source, re.MULTILINE), (name, place)


@pytest.mark.parametrize(
    "line, message",
    [
        ("iirc trian --output runs", "no command"),
        ("iirc train --no-such-setting 3 --output runs", "(?i)no such option"),
        ("iirc train --preset no-such-preset --data shards --output runs", "no preset"),
        ("iirc data digest shards --benchmark no_such_benchmark", "no benchmark"),
        ("python tools/shard_cifar.py only_one_argument", "(?i)missing"),
    ],
)
def test_a_wrong_command_line_would_be_noticed(line, message):
    with pytest.raises(Exception, match=message):
        check(shlex.split(line))


@pytest.mark.parametrize("page", NAMES)
def test_commands_leave_the_folder_of_all_shards_to_several_datasets(page):
    words = [
        words for block in blocks_of(ROOT / page) if block.is_shell for words in block.commands
    ]
    assert [line for line in words if "shards" in line] == []  # but shards/cifar10
