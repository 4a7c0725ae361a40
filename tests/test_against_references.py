"""Methods do, step by step, what a reference implementation did; see tests/golden/references."""

from pathlib import Path

import pytest
import torch

from iirc_train.methods import METHODS
from tests.recordings import CASES, FOLDER, load
from tests.references import Replay, cases, row

VERIFIED = Path(__file__).parents[1] / "docs" / "verified.md"


@pytest.fixture(autouse=True)
def one_thread():
    """The images are so small that threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", cases())
def test_method_does_what_its_reference_did(name):
    found = Replay(name).run()
    assert found.first is None, found.first


@pytest.mark.parametrize(
    ("name", "setting", "value", "kind"),
    [
        ("icarl-pycil", "distillation_temperature", 2.02, "loss task 1, main, epoch 0, step 0"),
        ("wa-pycil", "weight_decay", 0.01, "parameters after task 0, main, epoch 0, step 0"),
        ("agem-mammoth", "lr", 0.051, "learning rate task 0, main, epoch 0, step 0"),
        ("ranpac-authors", "ranpac_ridge", 0.02, "scores task 0"),
        ("fecam-authors", "fecam_shrinkages", 1, "parameters after task 0, correlations"),
        ("slda-authors", "slda_shrinkage", 1.1e-4, "scores task 0"),
    ],
)
def test_a_setting_that_differs_is_found_where_it_acts_first(
    monkeypatch, name, setting, value, kind
):
    case = CASES[name]
    monkeypatch.setitem(CASES, name, case._replace(settings={**case.settings, setting: value}))
    first = Replay(name).run().first
    assert first is not None and first.startswith(kind)


def test_each_recording_is_compared_and_is_small():
    files = {path.stem: path.stat().st_size for path in FOLDER.glob("*-*.npz")}
    assert files.keys() == CASES.keys()
    assert max(files.values()) < 60_000
    for name in files:
        assert load(name)["method"] == name.partition("-")[0]


@pytest.mark.parametrize("name", cases())
def test_the_table_of_verified_methods_has_the_row(name):
    assert row(name) in VERIFIED.read_text(), "print it with: python -m tests.references"


def test_each_method_is_verified_or_listed_as_not():
    page = VERIFIED.read_text()
    verified = {name.partition("-")[0] for name in CASES}
    for name in METHODS.keys() - verified:
        assert f"`{name}`" in page
