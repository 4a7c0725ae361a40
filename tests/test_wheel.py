"""What the built wheel holds, and that it serves without the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from tests.conftest import write_image_folder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the content of the wheel, as pip puts it into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site-packages")
    return folder / "site-packages"


def files_below(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_file_of_both_packages_and_the_manifests(installed):
    for package in ("iirc_data", "iirc_train"):
        packed = files_below(installed / package)
        assert files_below(ROOT / package) == {f for f in packed if not f.startswith("manifests/")}
        assert "py.typed" in packed
    assert files_below(ROOT / "manifests") == files_below(installed / "iirc_data" / "manifests")
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {
        "iirc_data",
        "iirc_train",
    }


PROGRAM = """
import sys
from pathlib import Path
import iirc_data
from iirc_train.cli import main

here = Path(sys.argv.pop(1))
assert here in Path(iirc_data.__file__).parents, iirc_data.__file__
assert iirc_data.load_benchmark("iirc_cifar10").name in iirc_data.benchmark_names()
try:
    main()
except SystemExit as end:
    assert not end.code
store = iirc_data.open_shards("shards")
assert len(store) == 3
sys.exit("torch" in sys.modules)
"""


def test_the_wheel_shards_a_folder_outside_the_repository(installed, tmp_path):
    write_image_folder(tmp_path / "images", {"train": {"cat": 2}, "test": {"cat": 1}})
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, installed, "data", "shard", "folder", "images", "shards"],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "digest " in process.stdout
