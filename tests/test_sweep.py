"""Sweeps: many runs, broken off and gone on with; some fail, the others do not mind."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from typer.testing import CliRunner

from iirc_data.errors import BenchmarkError, ConfigurationError
from iirc_train.cli.app import app
from iirc_train.cli.sweep import _tables
from iirc_train.config import ExperimentConfig
from iirc_train.report.runs import Run, group_runs
from iirc_train.report.settings_table import settings_table
from iirc_train.run.record import is_finished
from iirc_train.runtime.gpus import SharedGpus
from iirc_train.sweep import Outcome, PlannedRun, plan, run_all
from iirc_train.training.launch import run_experiment
from tests.processes import CONTEXT, hear_ctrl_c
from tests.test_resume import assert_equal_runs

METHODS = ["finetune", "mask_seen_classes"]


@pytest.fixture
def finished_record() -> dict[str, object]:
    session = {"versions": {}, "finished": "2026-01-01T00:00:00+00:00"}
    return {"dataset": {}, "task_views": {}, "sessions": [session]}


@pytest.fixture
def settings_file(tiny_settings, tmp_path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(tiny_settings | {"threads": 1, "decoder": "pillow"}))
    return path


def start(
    *arguments: object, folder: Path | None = None, prepare=hear_ctrl_c
) -> subprocess.Popen[bytes]:
    """Start the command in a folder, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "iirc_train", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=prepare,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )


def metrics_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder).parent): path.read_bytes()
        for path in sorted(folder.rglob("metrics.jsonl"))
    }


def train(config: ExperimentConfig, folder: Path) -> None:
    run_experiment(config, folder, Console(quiet=True))


def train_alone(config: ExperimentConfig, folder: Path) -> None:
    """Train without a sweep, in a process of its own."""
    process = CONTEXT.Process(target=train, args=(config, folder))
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.mark.slow
def test_a_sweep_killed_half_way_and_started_again_ends_with_complete_equal_runs(
    settings_file, tmp_path
):
    command = ["sweep", "--config", settings_file, "--schedule", "0-1", "--jobs", 2]
    command += [word for method in METHODS for word in ("--method", method)]
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    for run in plan(unbroken, methods=METHODS, schedules=[0, 1], file=settings_file):
        train_alone(run.config, run.folder)

    process = start(*command, "--output", killed)
    while len(metrics_of(killed)) < 2 and process.poll() is None:
        time.sleep(0.05)
    process.kill()  # its runs end with it, or they would be in use below
    process.communicate()
    assert not all(is_finished(killed / name) for name in metrics_of(unbroken))
    process = start(*command, "--output", killed)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed.decode()

    names = {f"{method}/schedule_{k}/seed_0" for method in METHODS for k in (0, 1)}
    assert set(metrics_of(killed)) == names
    assert metrics_of(killed) == metrics_of(unbroken)
    assert all(is_finished(killed / name) for name in names)
    assert all(name in printed.decode() for name in names)


@pytest.mark.slow
def test_a_run_that_fails_is_listed_and_the_others_are_trained_and_logged(
    settings_file, tmp_path, monkeypatch
):
    broken = tmp_path / "sweep" / "mask_seen_classes" / "schedule_0" / "seed_0"
    (broken / "checkpoints").mkdir(parents=True)  # what no run can begin in
    process = start(
        *("sweep", "--config", settings_file, "--output", tmp_path / "sweep"),
        *("--method", "mask_seen_classes", "--method", "finetune"),
    )
    printed, _ = process.communicate()
    text = printed.decode()
    assert process.returncode == 1, text
    assert "holds a run already" in text
    assert str(broken / "log.txt") in text
    assert not is_finished(broken)
    trained = tmp_path / "sweep" / "finetune" / "schedule_0" / "seed_0"
    assert is_finished(trained)
    log = (trained / "log.txt").read_text()
    assert log.startswith("$ ")
    assert "after task" in log


def test_runs_are_planned_for_every_combination(settings_file, tmp_path):
    runs = plan(tmp_path, methods=METHODS, schedules=[0, 1], seeds=[3, 4], file=settings_file)
    assert len(runs) == 8
    assert runs[0].folder == tmp_path / "finetune" / "schedule_0" / "seed_3"
    assert {(r.config.method, r.config.schedule, r.config.seed) for r in runs} == {
        (method, schedule, seed) for method in METHODS for schedule in (0, 1) for seed in (3, 4)
    }
    presets = plan(
        tmp_path,
        presets=["cifar100-lucir-20", "cifar100-finetune"],
        overrides={"data": "shards", "lr": 0.5},
    )
    assert [run.name for run in presets] == [
        "cifar100-lucir-20/schedule_0/seed_100",
        "cifar100-finetune/schedule_0/seed_100",
    ]
    assert {run.config.lr for run in presets} == {0.5}


def test_what_is_named_twice_is_trained_once(settings_file, tmp_path):
    runs = plan(tmp_path, methods=METHODS * 2, schedules=[0, 0], seeds=[1, 1], file=settings_file)
    assert [run.config.method for run in runs] == METHODS
    assert len({run.folder for run in runs}) == 2


def test_any_setting_is_varied_by_the_methods_that_have_it(settings_file, tmp_path):
    runs = plan(
        tmp_path,
        methods=["finetune", "lucir"],
        vary={"lr": ["0.1", "0.30", 0.3], "lucir_lambda": [1, 2]},
        file=settings_file,
    )
    assert [run.name for run in runs] == [
        "finetune/lr_0.1/schedule_0/seed_0",
        "finetune/lr_0.3/schedule_0/seed_0",
        "lucir/lr_0.1/lucir_lambda_1.0/schedule_0/seed_0",
        "lucir/lr_0.1/lucir_lambda_2.0/schedule_0/seed_0",
        "lucir/lr_0.3/lucir_lambda_1.0/schedule_0/seed_0",
        "lucir/lr_0.3/lucir_lambda_2.0/schedule_0/seed_0",
    ]
    assert [run.config.lr for run in runs] == [0.1, 0.3, 0.1, 0.1, 0.3, 0.3]
    assert [run.config.values().get("lucir_lambda") for run in runs] == [None, None, 1, 2, 1, 2]


def test_a_setting_that_some_of_the_methods_have_is_given_to_these(settings_file, tmp_path):
    methods, settings = ["finetune", "lucir"], {"lucir_lambda": 3}
    finetune, lucir = plan(tmp_path, methods=methods, file=settings_file, overrides=settings)
    assert "lucir_lambda" not in finetune.config.values()
    assert lucir.config.values()["lucir_lambda"] == 3


@pytest.mark.parametrize(
    ("name", "values", "parts"),
    [
        ("lr_schedule", ["80 110", "-1"], ["lr_schedule_80_110", "lr_schedule_None"]),
        ("joint", ["yes", "no"], ["joint_True", "joint_False"]),
        ("data", ["a/b", "s3://c d"], ["data_a_b", "data_s3_c_d"]),
        ("tasks_configuration_id", None, None),
    ],
)
def test_folders_are_named_by_the_values_of_any_kind(settings_file, tmp_path, name, values, parts):
    if values is None:
        with pytest.raises(ConfigurationError, match="not vary schedule"):
            plan(tmp_path, methods=["finetune"], file=settings_file, vary={name: [0]})
        return
    runs = plan(tmp_path, methods=["finetune"], file=settings_file, vary={name: values})
    assert [run.folder.parts[-3] for run in runs] == parts


def test_runs_that_differ_in_a_setting_are_groups_of_a_report(settings_file, tmp_path):
    vary = {"temperature": [1, 2], "lucir_lambda": [3, 4]}
    runs = plan(tmp_path, methods=["agem", "lucir"], seeds=[0, 1], vary=vary, file=settings_file)
    groups = group_runs([Run(run.folder, run.config, {}) for run in runs])
    assert [group.name for group in groups] == [
        "agem, temperature 1.0",
        "agem, temperature 2.0",
        "lucir, temperature 1.0, lucir_lambda 3.0",
        "lucir, temperature 1.0, lucir_lambda 4.0",
        "lucir, temperature 2.0, lucir_lambda 3.0",
        "lucir, temperature 2.0, lucir_lambda 4.0",
    ]
    assert {len(group.runs) for group in groups} == {2}
    table = settings_table(groups)
    assert dict(table.rows)["agem, temperature 1.0"][table.names.index("lucir_lambda")] == ""


def test_joint_training_is_called_by_its_method_before_a_setting_that_only_one_has(
    settings_file, tmp_path
):
    joint = {"joint": True}
    runs = plan(tmp_path, methods=["finetune", "lucir"], file=settings_file, overrides=joint)
    groups = group_runs([Run(run.folder, run.config, {}) for run in runs])
    assert [group.name for group in groups] == ["joint, method finetune", "joint, method lucir"]


def test_a_sweep_goes_on_with_runs_that_have_settings_of_every_method(settings_file, tmp_path):
    (run,) = plan(tmp_path, methods=["finetune"], file=settings_file)
    run.folder.mkdir(parents=True)
    old = run.config.values() | {"lucir_lambda": 3.0, "lucir_margin_1": 0.5}
    (run.folder / "config.yaml").write_text(yaml.safe_dump(old))
    assert plan(tmp_path, methods=["finetune"], file=settings_file) == [run]


def test_other_settings_in_the_same_folder_are_refused_before_anything_is_trained(
    settings_file, tmp_path
):
    (run,) = plan(tmp_path, methods=["finetune"], file=settings_file)
    run.folder.mkdir(parents=True)
    run.config.save(run.folder / "config.yaml")
    assert plan(tmp_path, methods=["finetune"], file=settings_file) == [run]
    with pytest.raises(ConfigurationError, match=r"lr was 0\.1, is 0\.2 now"):
        plan(tmp_path, methods=["finetune"], file=settings_file, overrides={"lr": 0.2})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "icarl_cn"], "did you mean 'icarl_cnn'"),
        (["--schedule", "0-x"], "is not a number"),
        (["--seed", "3-1"], "is not a number"),
        (["--method", "icarl", "--schedule", "0-1,7"], "has schedules 0 to 1, got 7"),
        (["--schedule", "0-99999999"], "is not a number"),
        (["--jobs", "2", "--scheduler", "tcp://127.0.0.1:9"], "choose one"),
        (["--method", "icarl", "--vary", "lr=0.1,fast"], "lr: Input should be a valid number"),
        (["--vary", "learning_rate=1"], "no setting 'learning_rate'"),
        (["--method", "icarl", "--vary", "lucir-lambda=1"], "is a setting of lucir; "),
        (["--vary", "lr"], "such as lr=0.1,0.3"),
        (["--vary", "lr=1,"], "such as lr=0.1,0.3"),
        (["--vary", "seed=1,2"], "--vary does not vary seed"),
        (["--vary", "lr=1,2", "--lr", "1"], "lr is given both"),
        (["--method", "icarl", "--vary", "data=a/b,a_b"], "map to the same folder"),
        (["--preset", "cifar100-lucir-2"], "did you mean 'cifar100-lucir-20'"),
        (
            ["--method", "finetune", "--method", "er", "--buffer-sampling-multiplier", "2"],
            "buffer_sampling_multiplier 2 has no effect on method er",
        ),
        (["--method", "finetune", "--method", "wa", "--loss", "bce"], "wa has no loss 'bce'"),
        (["--method", "icarl", "--loss", "ce", "--decision", "threshold"], "needs loss 'bce'"),
        (["--method", "finetune", "--loss", "ce", "--hcv", "both"], "needs decision 'threshold'"),
        (["--method", "finetune", "--method", "bic", "--calibrate-thresholds"], "thresholds"),
    ],
)
def test_what_cannot_be_swept_is_told_before_it_begins(settings_file, tmp_path, arguments, message):
    output = tmp_path / "sweep"
    result = CliRunner().invoke(
        app, ["sweep", "--config", str(settings_file), "--output", str(output), *arguments]
    )
    assert isinstance(result.exception, (ConfigurationError, BenchmarkError))
    assert message in str(result.exception)
    assert not output.exists()


@pytest.mark.slow
def test_a_cluster_trains_the_same_runs_though_it_loses_a_worker(settings_file, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as cluster:
        process = start(
            *("sweep", "--config", settings_file.name, "--output", "cluster"),
            *("--method", "finetune", "--scheduler", cluster.scheduler_address),
            folder=tmp_path,  # the workers are elsewhere
        )
        while not any(metrics_of(tmp_path / "cluster").values()) and process.poll() is None:
            time.sleep(0.02)
        os.kill(cluster.workers[0].pid, signal.SIGKILL)  # another one is started
        printed, _ = process.communicate()
    assert process.returncode == 0, printed.decode()
    (run,) = plan(tmp_path, methods=["finetune"], file=settings_file)
    train_alone(run.config, tmp_path / "run")
    trained = tmp_path / "cluster" / "finetune" / "schedule_0" / "seed_0"
    assert_equal_runs(trained, tmp_path / "run")
    assert (trained / "log.txt").read_text().count("\n$ ") == 1  # started twice


def test_an_executor_that_loses_a_run_does_not_stop_the_others(settings_file, tmp_path):
    class Losing:
        def submit(self, work, run, processes):
            future = Future()
            if run.config.method == "finetune":
                future.set_exception(RuntimeError("the worker died"))
            else:
                future.set_result(Outcome(run, score=0.5))
            return future

    seen = []
    outcomes = run_all(plan(tmp_path, methods=METHODS, file=settings_file), Losing(), seen.append)
    assert [outcome.error for outcome in outcomes] == ["the worker died", None]
    assert sorted(o.run.name for o in seen) == sorted(o.run.name for o in outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_loses_no_epoch(tiny_settings, tmp_path, number):
    settings = {"epochs_per_task": 500, "checkpoint_interval": 0, "threads": 1, "decoder": "pillow"}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(tiny_settings | settings))
    sweep = tmp_path / "sweep"
    process = start(
        *("sweep", "--config", tmp_path / "settings.yaml", "--output", sweep, "--jobs", 2),
        *("--method", "finetune", "--seed", "0-3"),
    )
    while sum(map(bool, metrics_of(sweep).values())) < 2 and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as terminals and schedulers do: all processes get it
    printed, _ = process.communicate()
    assert process.returncode == 128 + number, printed.decode()
    assert "the runs stop after their current steps" in printed.decode()
    assert "run the same command again" in printed.decode()
    begun = sorted(sweep.glob("finetune/schedule_0/*/config.yaml"))
    assert [path.parent.name for path in begun] == ["seed_0", "seed_1"]
    for run in (path.parent for path in begun):
        assert (run / "checkpoints" / "last.pt").exists()
        assert "iirc train --resume" in (run / "log.txt").read_text()


@pytest.mark.slow
def test_a_sweep_in_the_background_stops_when_ctrl_c_stops_its_run(tiny_settings, tmp_path):
    """A shell without job control lets background commands ignore SIGINT; training handles it."""
    settings = {"epochs_per_task": 500, "threads": 1, "decoder": "pillow"}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(tiny_settings | settings))
    sweep = tmp_path / "sweep"
    process = start(
        *("sweep", "--config", tmp_path / "settings.yaml", "--output", sweep),
        *("--method", "finetune", "--seed", "0-2"),
        prepare=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    while not any(metrics_of(sweep).values()) and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGINT, printed.decode()
    assert printed.decode().splitlines()[1:] == [
        "interrupted: run the same command again to resume"
    ]
    assert [path.name for path in sweep.glob("finetune/schedule_0/*")] == ["seed_0"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "ending",
    ["sys.exit(128 + {0})", "signal.signal({0}, signal.SIG_DFL); os.kill(os.getpid(), {0})"],
)
def test_a_run_that_was_interrupted_stops_the_sweep_by_the_same_signal(
    settings_file, tmp_path, number, ending
):
    runs = plan(tmp_path / "sweep", methods=METHODS, file=settings_file)
    program = ("-c", "import os, signal, sys; " + ending.format(int(number)))
    seen = []
    with ThreadPoolExecutor(1) as threads, pytest.raises(KeyboardInterrupt) as caught:
        run_all(
            runs,
            threads,
            done=seen.append,
            stopping=lambda: seen.append("stopping"),
            program=program,
        )
    assert caught.value.args == (number,)
    assert not seen
    assert [run.folder.exists() for run in runs] == [True, False]


def test_a_damaged_run_does_not_stop_the_others(settings_file, tmp_path, finished_record):
    runs = plan(tmp_path, methods=METHODS, file=settings_file)
    for run in runs:
        run.folder.mkdir(parents=True)
        (run.folder / "record.json").write_text(json.dumps(finished_record))
        (run.folder / "metrics.jsonl").write_text("cut {")
    with ThreadPoolExecutor(1) as threads:
        outcomes = run_all(runs, threads)
    assert ["is not a readable run" in outcome.error for outcome in outcomes] == [True, True]


WAITS_FOR_THE_OTHERS = """
import os, pathlib, sys, time
run = next(pathlib.Path(word) for word in sys.argv if word.endswith("seed_" + word[-1]))
(run / "gpu").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
while len(list(run.parent.glob("*/gpu"))) < 3:
    time.sleep(0.01)
sys.exit("seen")
"""


@pytest.mark.parametrize(
    ("device", "visible", "n_gpus", "expected"),
    [
        ("auto", None, 2, ["0", "0", "1"]),
        ("cuda", "GPU-a, GPU-b,GPU-c", 3, ["GPU-a", "GPU-b", "GPU-c"]),
        ("cuda", "5,6,7", 2, ["5", "5", "6"]),  # CUDA ignores what follows an unknown one
        ("auto", None, 1, ["all"] * 3),
        ("auto", None, 0, ["all"] * 3),
        ("cuda:1", None, 2, ["all"] * 3),
        ("cpu", None, 2, ["all"] * 3),
    ],
)
def test_runs_at_the_same_time_are_spread_over_the_gpus(
    settings_file, tmp_path, monkeypatch, device, visible, n_gpus, expected
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    runs = plan(
        tmp_path / "sweep",
        methods=["finetune"],
        seeds=[0, 1, 2],
        file=settings_file,
        overrides={"device": device},
    )
    with ThreadPoolExecutor(3) as threads:
        outcomes = run_all(runs, threads, program=("-c", WAITS_FOR_THE_OTHERS))
    assert {outcome.error for outcome in outcomes} == {"seen"}
    found = sorted((run.folder / "gpu").read_text() for run in runs)
    assert found == expected


def test_a_gpu_is_free_again_after_its_run():
    gpus = SharedGpus(["0", "1"])
    with gpus.one() as first:
        for _ in range(3):
            with gpus.one() as second:
                assert (first, second) == (
                    {"CUDA_VISIBLE_DEVICES": "0"},
                    {"CUDA_VISIBLE_DEVICES": "1"},
                )


@pytest.mark.parametrize(
    ("metrics", "title"),
    [
        (["modified_jaccard_sim"], "pw-JS on the test split"),
        (["top1", "top1"], "top-1 on the test split"),
        (["top1", None, "modified_jaccard_sim"], "pw-JS or top-1 on the test split"),
        ([None], "results on the test split"),
    ],
)
def test_the_table_names_the_metric_of_its_scores(metrics, title):
    config = ExperimentConfig.parse({"benchmark": "b", "data": "d", "method": "finetune"})
    run = PlannedRun("r", Path("r"), config)
    outcomes = [Outcome(run, 0.5 if m else None, None if m else "error", m) for m in metrics]
    (table,) = _tables(outcomes, width=None)
    assert table.title.plain.startswith(title)
