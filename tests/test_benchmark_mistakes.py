"""Every program under ``benchmarks/`` answers an ordinary mistake with one line."""

import runpy
import sys
import warnings
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
GUARD = 'if __name__ == "__main__":'

MISTAKES = {
    "benchmarks": ["--photographs absent"],
    "benchmarks.buffer_commits": ["--classes 1 --folder absent"],
    "benchmarks.cold_files": ["absent"],
    "benchmarks.features": [
        "absent",
        "--network resnet18x",
        "--preset cifr",
        "--network resnet8 --weights absent.pt",
    ],
    "benchmarks.frozen_on_cifar100": ["runs", "runs --data absent", "file --data shards"],
    "benchmarks.gpu_acceptance": ["out", "out --steps 11", "file --rehearse"],
    "benchmarks.gpu_run": ["--device gpu", "--benchmark absent"],
    "benchmarks.hierarchy_on_cifar100": ["runs", "runs --data absent", "file --data shards"],
    "benchmarks.iirc_on_cifar100": ["runs", "runs --data absent", "file --data shards"],
    "benchmarks.loader": ["absent", "--device cuda", "--device gpu", "empty"],
    "benchmarks.methods_on_cifar10": [
        "train absent runs",
        "train shards runs",
        "train shards file",
        "table runs page.md",
    ],
    "benchmarks.methods_on_cifar100": ["runs", "runs --data absent", "file --data shards"],
    "benchmarks.open_dataset": ["--shape absent"],
    "benchmarks.operations": ["absent", "finetune --layers 7"],
    "benchmarks.parity": ["--benchmark absent"],
    "benchmarks.range_server": ["absent"],
    "benchmarks.results": ["absent.json", "empty", "file"],
    "benchmarks.sharding": ["absent", "empty"],
    "benchmarks.small_images": ["absent", "--device cuda", "--device gpu", "empty"],
    "benchmarks.stages": [
        "absent",
        "--device cuda",
        "--device gpu",
        "--preset cifr",
        "shards --preset cifar --images 8 --decoder dalli",
        "shards --preset cifar --images 8 --network resnet18x",
        "shards --preset cifar --images 8 --precision fp8",
    ],
    "benchmarks.streaming": ["absent"],
    "benchmarks.task_views": ["--fraction 2"],
    "benchmarks.train_step": ["absent", "shards --layers 7"],
    "benchmarks.weak_replay": ["runs", "runs --data absent", "file --data shards"],
}


def test_every_program_has_mistakes_here():
    programs = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in (ROOT / "benchmarks").rglob("*.py")
        if GUARD in path.read_text()
    }
    assert programs == set(MISTAKES)


@pytest.mark.parametrize(
    ("program", "arguments"),
    [(program, arguments) for program, lines in MISTAKES.items() for arguments in lines],
)
def test_a_mistake_is_answered_in_one_line(
    tmp_path, monkeypatch, capfd, tiny_store, program, arguments
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").symlink_to(tiny_store.root)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("{}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", [program, *arguments.split()])
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
        warnings.filterwarnings("ignore", "'benchmarks.* found in sys.modules")
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    lines = capfd.readouterr().err.splitlines()
    if ended.value.code == 2:  # of an option, with the usage above
        assert lines[0].startswith("Usage: ")
    else:
        assert ended.value.code == 1
        (line,) = [line for line in lines if "error" in line.lower()]
        assert line.startswith("error: ") and line == lines[-1]
    assert not any("Traceback" in line for line in lines)
