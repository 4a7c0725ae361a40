"""Runs resumed elsewhere: on another machine, with moved data, in another precision."""

import io
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from typer.testing import CliRunner, Result

from iirc_data.benchmarks import Benchmark
from iirc_data.errors import CheckpointError, ConfigurationError
from iirc_data.shards import write_shards
from iirc_data.sources import open_folder
from iirc_train import sweep
from iirc_train.cli.app import app
from iirc_train.config import ExperimentConfig
from iirc_train.run.checkpoint import load_checkpoint, save_checkpoint
from iirc_train.run.directory import BUFFER_NAME, RunDirectory, read_metrics
from iirc_train.run.record import is_finished, read_record
from iirc_train.run.resolved import resolved_precision
from iirc_train.sweep import plan
from iirc_train.training.components import Experiment
from iirc_train.training.launch import (
    continue_experiment,
    repeat_experiment,
    resume_experiment,
    run_experiment,
)
from iirc_train.training.trainer import Training
from tests.conftest import write_image_folder
from tests.test_resume import QUIET, BrokenOffError, break_off_at_save, contents, tensors

BENCHMARK = Benchmark(
    name="two",
    dataset="tiny",
    setup="CIL",
    other_classes=["bus", "truck", "tulip"],
    schedules=[[["bus"], ["truck"]]],
)


@pytest.fixture(scope="module")
def settings(tiny_settings, tmp_path_factory) -> dict[str, object]:
    file = tmp_path_factory.mktemp("benchmark") / "two.json"
    file.write_text(BENCHMARK.model_dump_json())
    return tiny_settings | {
        "benchmark": str(file),
        "method": "finetune",
        "threads": 1,
        "decoder": "pillow",
        "loss": "bce",  # with one class, ce is 0
        "decision": "threshold",
        "first_task_epochs": 2,
    }


def begin(config: ExperimentConfig, path: Path, precision: str | None = None) -> Path:
    """Train the first of two tasks, in a precision that the configuration leaves open."""
    with pytest.MonkeyPatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 3)
        experiment = Experiment(config, path / BUFFER_NAME, precision)
        Training(experiment, RunDirectory.create(path, config)).run(QUIET)
    return path


@pytest.fixture(scope="module")
def begun_runs(settings, tmp_path_factory) -> dict[str, Path]:
    """Runs that finished their first task, in the precisions of a CPU and of a GPU."""
    folder, config = tmp_path_factory.mktemp("begun"), ExperimentConfig.parse(settings)
    return {name: begin(config, folder / name, name) for name in ("fp32", "bf16")}


@pytest.fixture
def begun(begun_runs, tmp_path) -> Path:
    return shutil.copytree(begun_runs["fp32"], tmp_path / "run")


@pytest.fixture
def begun_in_bf16(begun_runs, tmp_path) -> Path:
    return shutil.copytree(begun_runs["bf16"], tmp_path / "bf16")


@pytest.fixture(scope="module")
def unbroken(settings, tmp_path_factory) -> Path:
    return run_experiment(
        ExperimentConfig.parse(settings), tmp_path_factory.mktemp("unbroken") / "run", QUIET
    )


def go_on(run: Path, **changes: object) -> str:
    """Resume a run; return its output."""
    console = Console(record=True, width=300, quiet=False, file=io.StringIO())
    resume_experiment(run, console, changes=changes)
    return console.export_text()


def resolved(run: Path) -> dict[str, object]:
    found = read_record(run)["sessions"][-1]["resolved"]
    assert load_checkpoint(run / "checkpoints/last.pt")["experiment"]["resolved"] == found
    return found


def test_what_the_settings_came_to_is_recorded_and_kept_in_the_checkpoint(unbroken):
    assert resolved(unbroken) == {
        "device": "cpu",
        "precision": "fp32",
        "decoder": "pillow",
        "processes": 1,
        "threads": 1,
        "network": "resnet8",
        "graph": "off",
    }
    assert yaml.safe_load((unbroken / "config.yaml").read_text())["precision"] == "auto"


def test_a_run_goes_on_in_the_precision_that_it_began_in(begun_in_bf16, begun):
    assert "instead of" not in go_on(begun_in_bf16)
    assert resolved(begun_in_bf16)["precision"] == "bf16"
    go_on(begun)
    losses = [
        [record["loss"] for record in read_metrics(run) if record.get("split") == "train"]
        for run in (begun_in_bf16, begun)
    ]
    assert all(bf16 != fp32 for bf16, fp32 in zip(*losses, strict=True))


@pytest.mark.parametrize(
    ("capability", "changes", "is_slow"),
    [
        ("AVX2", {}, True),
        ("AVX2", {"precision": "bf16"}, True),
        ("AVX2", {"precision": "fp32"}, False),
        ("AVX512", {}, False),
    ],
)
def test_training_in_bf16_on_a_processor_that_emulates_it_is_noted_once(
    begun_in_bf16, monkeypatch, capability, changes, is_slow
):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    assert go_on(begun_in_bf16, **changes).count("give --precision fp32") == is_slow


def test_a_run_that_left_bf16_is_not_told_to_leave_it(settings, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 1)
        run_experiment(ExperimentConfig.parse(settings | {"precision": "bf16"}), run, QUIET)
    with pytest.MonkeyPatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 1)
        go_on(run, precision="fp32")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    assert "give --precision fp32" not in go_on(run)


def test_another_precision_is_taken_when_asked_for_reported_and_kept(begun_in_bf16):
    with pytest.MonkeyPatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 0)  # before it could be kept
        go_on(begun_in_bf16, precision="fp32")
    begun_again = shutil.copytree(begun_in_bf16, begun_in_bf16.with_name("copy"))
    go_on(begun_again)
    assert resolved(begun_again)["precision"] == "bf16"
    assert "note: the run resumes with precision fp32 instead of bf16" in go_on(
        begun_in_bf16, precision="fp32"
    )
    assert resolved(begun_in_bf16)["precision"] == "fp32"
    unfinish(begun_in_bf16)
    assert "instead of" not in go_on(begun_in_bf16)
    assert read_record(begun_in_bf16)["sessions"][-1]["resolved"]["precision"] == "fp32"
    assert begin_of(begun_in_bf16) == "bf16"


def begin_of(run: Path) -> object:
    return read_record(run)["sessions"][0]["resolved"]["precision"]


def unfinish(run: Path) -> None:
    record = read_record(run)
    for session in record["sessions"]:
        session.pop("finished", None)
    (run / "record.json").write_text(json.dumps(record))


def test_an_altered_precision_in_the_configuration_is_refused(begun):
    path = begun / "config.yaml"
    path.write_text(path.read_text().replace("precision: auto", "precision: bf16"))
    before = contents(begun)
    with pytest.raises(CheckpointError, match="precision: auto, now precision: bf16"):
        go_on(begun)
    assert contents(begun) == before


@pytest.mark.parametrize(
    ("precision", "device", "size", "can", "expected"),
    [
        ("auto", "cpu", 224, False, "fp32"),
        ("bf16", "cpu", 32, False, "bf16"),
        ("auto", "cuda", 32, True, "fp32"),
        ("auto", "cuda", 64, True, "fp32"),
        ("auto", "cuda", 65, True, "bf16"),
        ("auto", "cuda", 224, True, "bf16"),
        ("auto", "cuda", 224, False, "fp32"),
        ("fp32", "cuda", 224, True, "fp32"),
        ("bf16", "cuda", 32, True, "bf16"),
    ],
)
def test_the_default_precision_depends_on_the_size_of_images(
    monkeypatch, precision, device, size, can, expected
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: can)
    assert resolved_precision(precision, torch.device(device), size) == expected


def test_a_device_that_cannot_compute_so_says_what_to_give(begun_in_bf16, monkeypatch):
    def cannot(precision, device, image_size):
        if precision == "bf16":
            raise ConfigurationError("this device does not support bf16: give --precision fp32")
        return "fp32"

    monkeypatch.setattr("iirc_train.training.components.resolved_precision", cannot)
    with pytest.raises(ConfigurationError, match="give --precision fp32"):
        go_on(begun_in_bf16)
    go_on(begun_in_bf16, precision="fp32")
    assert is_finished(begun_in_bf16)


def test_a_repeated_run_computes_in_the_precision_that_the_run_began_in(begun_in_bf16, tmp_path):
    again = repeat_experiment(begun_in_bf16, tmp_path / "again", QUIET)
    assert begin_of(again) == "bf16"
    assert "precision: auto" in (again / "config.yaml").read_text()
    lines = (begun_in_bf16 / "metrics.jsonl").read_text().splitlines()[:3]
    assert (again / "metrics.jsonl").read_text().splitlines()[:3] == lines


def test_another_machine_is_reported_in_one_line_and_kept(begun, unbroken):
    printed = go_on(begun, decoder="dali", threads=2, checkpoint_interval=0)
    assert (
        "note: the run resumes with decoder dali instead of pillow, 2 thread(s) instead of 1"
        in printed
    )
    assert (resolved(begun)["decoder"], resolved(begun)["threads"]) == ("dali", 2)
    kept = yaml.safe_load((begun / "config.yaml").read_text())
    assert (kept["decoder"], kept["threads"], kept["checkpoint_interval"]) == ("dali", 2, 0)
    assert is_finished(begun)
    assert len(read_metrics(begun)) == len(read_metrics(unbroken))
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("network", "ResNet-18", "trains the network resnet18, here it would be resnet8"),
        ("transforms", "imagenet", r"another transforms \(imagenet, now cifar\)"),
    ],
)
def test_another_network_or_other_transforms_are_refused(begun, name, value, message):
    path = begun / "checkpoints" / "last.pt"
    state = load_checkpoint(path)
    part = state["experiment"] if name == "transforms" else state["experiment"]["resolved"]
    part[name] = value
    save_checkpoint(path, state)
    with pytest.raises(CheckpointError, match=message):
        go_on(begun)


def test_checkpoints_and_records_of_earlier_releases_are_read(begun, unbroken):
    path = begun / "checkpoints" / "last.pt"
    state = load_checkpoint(path)
    del state["experiment"]["resolved"], state["experiment"]["transforms"]
    configuration = state["experiment"]["configuration"]
    del configuration["use_best_model"]  # as of one that had no such setting
    configuration["lucir_lambda"] = 5.0  # and one that wrote the settings of all methods
    save_checkpoint(path, state)
    record = read_record(begun)
    for session in record["sessions"]:
        del session["resolved"]
    (begun / "record.json").write_text(json.dumps(record))
    assert "instead of" not in go_on(begun)
    ours, theirs = (tensors(load_checkpoint(r / "checkpoints/last.pt")) for r in (begun, unbroken))
    weights = [name for name in theirs if "/method/" in name]
    assert all(
        torch.equal(ours[name], theirs[name])
        for name in weights
        if isinstance(theirs[name], torch.Tensor)
    )


def test_a_run_recorded_with_a_former_name_of_its_decoder_goes_on_with_the_same_one(begun):
    path = begun / "checkpoints" / "last.pt"
    state = load_checkpoint(path)
    settings = state["experiment"]["configuration"]
    settings["engine"] = settings.pop("decoder").replace("pillow", "torch")
    state["experiment"]["resolved"]["decoder"] = "torch"
    save_checkpoint(path, state)
    text = (begun / "config.yaml").read_text()
    assert "decoder: pillow" in text
    (begun / "config.yaml").write_text(text.replace("decoder: pillow", "engine: torch"))
    assert "instead of" not in go_on(begun)


def test_an_earlier_release_finds_all_that_it_compares(begun):
    state = load_checkpoint(begun / "checkpoints/last.pt")["experiment"]
    settings = yaml.safe_load((begun / "config.yaml").read_text())
    for name in ("benchmark", "data", "device", "resident"):
        del settings[name]
    assert state["configuration"] == settings
    assert set(state["benchmark"]) == {"tasks", "train", "intask_valid", "posttask_valid", "test"}
    assert state["threads"] == 1


# ------------------------------------------------------------------ places


@pytest.fixture
def moved(settings, begun, tmp_path):
    """A run whose shards and benchmark have moved, and the settings that give their new places."""
    places = {"data": tmp_path / "old", "benchmark": tmp_path / "old.json"}
    config = begun / "config.yaml"
    old = {name: str(path) for name, path in places.items()}
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | old))
    return begun, {name: settings[name] for name in places}


def test_moved_data_is_asked_for_and_the_new_place_is_remembered(moved, unbroken, tmp_path):
    run, places = moved
    before = contents(run)
    with pytest.raises(ConfigurationError, match=r"data is not at .*/old: .* with --data"):
        go_on(run)
    with pytest.raises(ConfigurationError, match=r"benchmark is not at .*old.json: .*--benchmark"):
        go_on(run, data=places["data"])
    assert contents(run) == before
    with pytest.MonkeyPatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 0)
        go_on(run, **places)
    go_on(run)
    assert (run / "metrics.jsonl").read_bytes() == (unbroken / "metrics.jsonl").read_bytes()


def test_a_finished_run_needs_its_data_no_more(moved, tmp_path):
    run, places = moved
    go_on(run, **places)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(places["data"], str(tmp_path / "gone")))
    before = contents(run)
    assert resume_experiment(run, QUIET) == run
    assert contents(run) == before


def test_a_run_goes_on_from_another_folder_than_it_was_begun_in(settings, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("shards").symlink_to(settings["data"])
    shutil.copy(settings["benchmark"], "b.json")
    config = ExperimentConfig.parse(settings | {"data": "shards", "benchmark": "./b.json"})
    with pytest.MonkeyPatch.context() as patched, pytest.raises(BrokenOffError):
        break_off_at_save(patched, 3)
        run_experiment(config, Path("run"), QUIET)
    monkeypatch.chdir(tmp_path)
    go_on(Path("here/run"))
    assert is_finished(tmp_path / "here/run")


@pytest.fixture(scope="module")
def other_data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    classes = dict.fromkeys(BENCHMARK.leaf_classes, 10)
    write_shards(
        open_folder(write_image_folder(folder / "images", {"train": classes, "test": classes})),
        folder / "shards",
    )
    return folder / "shards"


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_other_data_in_place_of_a_runs_own_is_refused(begun, other_data, has_checkpoint):
    if not has_checkpoint:
        (begun / "checkpoints" / "last.pt").unlink()
        (begun / "metrics.jsonl").write_text("")
    before = contents(begun)
    error = CheckpointError if has_checkpoint else ConfigurationError
    with pytest.raises(error, match=r"(started|made) with (another )?dataset"):
        go_on(begun, data=str(other_data))
    assert contents(begun) == before


def test_what_defines_a_run_may_not_be_given_for_one_that_was_begun(begun, tmp_path):
    with pytest.raises(ConfigurationError, match="not lr: give only --benchmark, "):
        go_on(begun, lr=0.2, device="cpu")
    with pytest.raises(ConfigurationError, match="not lr: "):
        repeat_experiment(begun, tmp_path / "again", QUIET, changes={"lr": 0.2})


def test_continuing_begins_goes_on_or_leaves_a_finished_run(settings, begun, tmp_path, unbroken):
    config = ExperimentConfig.parse(settings)
    new = continue_experiment(config, tmp_path / "new", QUIET)
    console = Console(record=True, width=300, quiet=False, file=io.StringIO())
    continue_experiment(config, begun, console)
    assert console.export_text().startswith(f"resuming {begun} from task 1, epoch 0\n")
    for run in (new, begun):
        assert (run / "metrics.jsonl").read_bytes() == (unbroken / "metrics.jsonl").read_bytes()
    before = contents(new)
    console = Console(record=True, width=300, quiet=False, file=io.StringIO())
    continue_experiment(config, new, console)
    assert f"{new} is finished already" in console.export_text()
    assert contents(new) == before
    with pytest.raises(ConfigurationError, match="seed was 0, is 1 now"):
        continue_experiment(config.model_copy(update={"seed": 1}), new, QUIET)


def test_the_same_command_goes_on_with_its_run(settings, begun, begun_in_bf16, unbroken):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]

    def train(*arguments: object) -> Result:
        return CliRunner().invoke(app, ["train", *map(str, arguments)])

    metrics = (unbroken / "metrics.jsonl").read_bytes()
    refused = train("--output", begun, *options, "--lr=0.3")
    assert "lr was 0.1, is 0.3 now; give another --output" in str(refused.exception)
    for expected in ("resuming {} from task 1, epoch 0", "{} is finished already"):
        result = train("--output", begun, *options)
        assert result.exit_code == 0
        assert expected.format(begun) in result.stdout.replace("\n", "")
        assert (begun / "metrics.jsonl").read_bytes() == metrics

    again = begun_in_bf16  # as if killed before its first checkpoint
    shutil.rmtree(again / "checkpoints")
    (again / "metrics.jsonl").write_text("")
    for _ in range(2):
        assert train("--repeat", unbroken, "--output", again).exit_code == 0
        assert (again / "metrics.jsonl").read_bytes() == metrics


def test_a_folder_beside_the_run_is_answered_with_where_the_run_is(settings, begun, tmp_path):
    config = ExperimentConfig.parse(settings)
    for inside in (begun / "checkpoints", begun / "checkpoints/last.pt"):
        with pytest.raises(ConfigurationError, match=f"holds no run: .*; the run is {begun}$"):
            resume_experiment(inside, QUIET)
    shutil.copytree(begun, tmp_path / ".branch.branch.partial")  # of a killed command
    with pytest.raises(ConfigurationError, match=f"other runs: .* such as {begun}$"):
        resume_experiment(tmp_path, QUIET)
    with pytest.raises(ConfigurationError, match=f"lies inside the run {begun}"):
        run_experiment(config, begun / "again", QUIET)
    with pytest.raises(ConfigurationError, match=f"holds other runs, such as {begun}"):
        run_experiment(config, tmp_path, QUIET)
    with pytest.raises(ConfigurationError, match="holds a dataset"):
        run_experiment(config, Path(settings["data"]), QUIET)
    assert not (begun / "again").exists()


def test_a_configuration_file_beside_a_run_is_no_run(settings, tmp_path):
    (tmp_path / "config.yaml").write_text("lr: 0.1")
    RunDirectory.check_unused(tmp_path / "run")


# ------------------------------------------------------------------ sweeps


def test_another_machine_starts_the_program_that_the_sweep_was(tmp_path):
    processes = pickle.loads(pickle.dumps(sweep.Processes(tmp_path, ["-c", "print('mine')"])))
    assert processes.run(["train"], tmp_path / "log.txt") == 0
    assert (tmp_path / "log.txt").read_text().splitlines()[1] == "mine"


class Commands(list):
    """Notes the arguments of the processes that a sweep would start."""

    starts_no_others = False

    def run(self, arguments, log, on_one_gpu):
        self.append(arguments)
        log.write_text("noted")
        return 1


@pytest.fixture
def swept(settings, begun, tmp_path) -> Path:
    """A sweep with a run that was broken off."""
    shutil.copytree(begun, tmp_path / "sweep/finetune/schedule_0/seed_0")
    return tmp_path / "sweep"


def planned(folder: Path, settings: dict[str, object], **changes: object) -> list[str]:
    """Return how a sweep would start its only run."""
    (run,) = plan(folder, overrides=settings | changes)
    commands = Commands()
    sweep.train(run, commands)
    return commands[0]


def test_a_sweep_with_its_shards_spelt_differently_is_the_same_sweep(
    settings, swept, tmp_path, monkeypatch
):
    data = Path(settings["data"])
    (tmp_path / "link").symlink_to(data)
    monkeypatch.chdir(data.parent)
    run = str(swept / "finetune/schedule_0/seed_0")
    for spelt in (data.name, f"{data}/", f"{data}/../{data.name}", tmp_path / "link"):
        assert planned(swept, settings, data=spelt) == ["train", "--resume", run]


def test_a_sweep_goes_on_with_moved_data_and_another_machine(settings, swept, tmp_path):
    moved = {
        "data": str(shutil.copytree(settings["data"], tmp_path / "moved")),
        "benchmark": shutil.copy(settings["benchmark"], tmp_path / "moved.json"),
    }
    changes = {"decoder": "dali", "compile": True, "resident": False, "threads": None}
    command = planned(swept, settings, **moved, **changes)
    assert set(command[3:]) == {
        *(f"--{name}={path}" for name, path in moved.items()),
        *("--decoder=dali", "--compile", "--no-resident"),
    }


def test_a_sweep_with_other_data_or_settings_is_refused(settings, swept, other_data, tmp_path):
    with pytest.raises(ConfigurationError, match=r"holds a run with other data: .* dataset"):
        plan(swept, overrides=settings | {"data": str(other_data)})
    values = json.loads(BENCHMARK.model_dump_json()) | {"schedules": [[["truck"], ["bus"]]]}
    (tmp_path / "other.json").write_text(json.dumps(values))
    with pytest.raises(ConfigurationError, match=r"holds a run with other data: .* saw other"):
        plan(swept, overrides=settings | {"benchmark": str(tmp_path / "other.json")})
    with pytest.raises(ConfigurationError, match="precision was auto, is bf16 now"):
        plan(swept, overrides=settings | {"precision": "bf16"})
