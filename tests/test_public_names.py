"""``import iirc_train``: its names, how fast it is, training from a script or a notebook."""

import importlib
import io
import logging
import subprocess
import sys
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
from rich.console import Console

import iirc_train
from iirc_data.errors import ConfigurationError, IIRCError
from iirc_train.runtime.notes import logger, notes_on
from iirc_train.runtime.progress import can_draw_bars, run_progress
from iirc_train.training import api


def test_every_public_name_is_at_hand():
    assert set(iirc_train.__all__) == set(iirc_train._MODULES)
    for name in iirc_train.__all__:
        assert getattr(iirc_train, name) is not None
        assert name in dir(iirc_train)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = iirc_train.nothing


def test_importing_the_package_does_not_import_torch():
    code = "import sys, iirc_train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def settings(tiny_settings) -> dict[str, object]:
    return tiny_settings | {"method": "finetune", "threads": 1, "samples_per_class": 4}


def test_a_script_trains_logs_and_resumes_in_a_few_lines(settings, tmp_path, caplog, capsys):
    with caplog.at_level(logging.INFO, "iirc_train"):
        results = iirc_train.train(settings, tmp_path / "run")
    assert results.all_seen.shape == (4,)
    assert results.name == "run"
    shown = [record.getMessage() for record in caplog.records if record.name == "iirc_train"]
    assert shown[0] == "finetune on tiny: task 0: 2 new classes, 2 epochs of 1 batch"
    assert shown[1].startswith("finetune on tiny: task 0 epoch 0: loss ")
    assert shown[-1].startswith("finetune on tiny: after task 3 (of tasks 0 to 3): pw-JS ")
    assert capsys.readouterr().out == ""
    with pytest.raises(IIRCError, match="holds a run already"):
        iirc_train.train(settings, tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    again = iirc_train.train(settings, str(tmp_path / "run"), resume="auto", progress=False)
    assert np.array_equal(again.all_seen, results.all_seen)
    assert np.array_equal(iirc_train.resume(tmp_path / "run").all_seen, results.all_seen)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_a_script_gives_the_settings_of_its_method_by_name(settings, tmp_path):
    settings |= {"method": "er", "replay_batch_size": 3}
    iirc_train.train(settings, tmp_path / "run", progress=False)
    assert "replay_batch_size: 3" in (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(
        ConfigurationError, match="'lucir_lambda' is a setting of lucir; the method"
    ):
        iirc_train.train(settings | {"lucir_lambda": 3.0}, tmp_path / "other", progress=False)


def test_wrong_arguments_are_named(settings, tmp_path):
    with pytest.raises(ConfigurationError, match="resume='yes': choose 'never' or 'auto'"):
        iirc_train.train(settings, tmp_path / "run", resume="yes")
    with pytest.raises(ConfigurationError, match="there is no setting 'learning_rate'"):
        iirc_train.train(settings | {"learning_rate": 1}, tmp_path / "run")
    with pytest.raises(ConfigurationError, match="holds no run"):
        iirc_train.resume(tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("has_widgets", [True, False])
def test_a_notebook_shows_bars_if_it_has_widgets(monkeypatch, has_widgets):
    found = ModuleSpec("ipywidgets", None) if has_widgets else None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    notebook = Console(force_jupyter=True, file=io.StringIO())
    assert can_draw_bars(notebook) == has_widgets
    monkeypatch.setattr(api, "Console", lambda: notebook)
    assert api._console(progress=True) is (notebook if has_widgets else None)
    assert api._console(progress=False) is None


def test_a_console_shows_what_is_logged_only_inside_the_block():
    console = Console(file=io.StringIO(), width=40)
    with notes_on(console):
        logger.info("[red]%s", "shown")
        logging.getLogger("iirc_train.run.record").warning("note")
    logger.warning("not shown")
    with notes_on(None):
        logger.warning("not shown")
    assert console.file.getvalue() == "[red]shown\nnote\n"
    assert logger.level == logging.NOTSET and not logger.handlers


def test_logged_and_printed_lines_are_the_same(caplog):
    def follow(console: Console | None) -> None:
        with run_progress(console, "name", 2, 0) as progress:
            progress.begin_task(0, ["a"], n_epochs=1, n_batches=1)
            progress.batch_done()
            progress.epoch_done(
                {"task": 0, "epoch": 0, "loss": 1.0, "modified_jaccard_sim": 0.5}, 10.0
            )
            progress.task_done(0, {"modified_jaccard_sim": 0.5, "jaccard_sim": 0.5})

    console = Console(file=io.StringIO(), width=200)
    follow(console)
    with caplog.at_level(logging.INFO, "iirc_train"):
        follow(None)
    assert console.file.getvalue().splitlines() == [r.getMessage() for r in caplog.records]


@pytest.mark.parametrize(
    ("module", "names"),
    {
        "iirc_data.augment": ["TRANSFORM_PRESETS"],
        "iirc_data.benchmarks": ["load_benchmark"],
        "iirc_data.loader": ["make_engine", "make_loader"],
        "iirc_data.shards": ["ShardStore", "write_shards"],
        "iirc_data.task_sequence": ["TaskSequence"],
        "iirc_train.buffer.buffer": ["HerdingBuffer", "RandomBuffer"],
        "iirc_train.cli": ["main"],
        "iirc_train.config": ["ExperimentConfig"],
        "iirc_train.methods": ["METHODS", "MethodParts", "get_method"],
        "iirc_train.methods.base_method": ["BaseMethod"],
        "iirc_train.methods.step": ["Step"],
        "iirc_train.report.results": ["read_results"],
        "iirc_train.utils": ["transform_labels_names_to_vector"],
    }.items(),
)
def test_names_on_the_pages_of_the_first_release_can_still_be_imported(module, names):
    assert not [name for name in names if not hasattr(importlib.import_module(module), name)]
