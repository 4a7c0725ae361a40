"""Writes the files that reports read, with given scores, without training."""

import json
from pathlib import Path

import numpy as np

from iirc_train.config import ExperimentConfig

# score on task k (column) after task t (row)
SCORES = [[0.9], [0.5, 0.8], [0.6, 0.3, 0.7], [0.4, 0.2, 0.5, 0.6]]
ALL_SEEN = [0.9, 0.6, 0.5, 0.4]


def write_run(folder, benchmark, scores=SCORES, all_seen=ALL_SEEN, **settings) -> Path:
    """Write configuration, metrics and times of a run with the given pw-JS, and a higher JS."""
    folder.mkdir(parents=True)
    config = {"benchmark": str(benchmark), "data": "shards", "method": "finetune"} | settings
    ExperimentConfig.parse(config).save(folder / "config.yaml")
    lines = [{"kind": "epoch", "split": "train", "task": 0, "epoch": 0, "lr": 0.1, "loss": 0.5}]
    for after_task, row in enumerate(scores):
        for task, score in [*enumerate(row), ("all", all_seen[after_task])]:
            for split in ("posttask_valid", "test"):
                lines.append(
                    {
                        "kind": "evaluation",
                        "split": split,
                        "after_task": after_task,
                        "task": task,
                        "n_samples": 5,
                        "modified_jaccard_sim": score if split == "test" else 0.0,
                        "jaccard_sim": score + 0.1 if split == "test" else 0.0,
                    }
                )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "timings.jsonl").write_text(
        json.dumps({"task": 0, "epoch": 0, "seconds": 2.0, "images": 100})
        + "\n"
        + json.dumps(
            {"task": 0, "epoch": 1, "seconds": 4.0, "images": 100, "peak_memory_bytes": 2**31}
        )
        + "\n"
    )
    return folder


def write_waiting(run, waited) -> None:
    """Write ``timings.jsonl``: epochs of two seconds with these waits; None as before waits."""
    lines = [
        {"task": 0, "epoch": epoch, "seconds": 2.0, "images": 100}
        | ({} if seconds is None else {"waited": seconds})
        for epoch, seconds in enumerate(waited)
    ]
    (run / "timings.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def write_record(run, *, finished=True, **others) -> None:
    """Write ``record.json`` of a run of one session."""
    session = {"versions": {}} | ({"finished": "2026-01-01T00:00:00+00:00"} if finished else {})
    record = {"dataset": {}, "task_views": {}, "sessions": [session]} | others
    (run / "record.json").write_text(json.dumps(record))


def write_confusion(run, after_task, class_names, counts, n_samples) -> None:
    path = run / "confusion" / f"after_task_{after_task:03d}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        counts=np.array(counts, dtype=np.int64),
        n_samples=np.array(n_samples, dtype=np.int64),
        class_names=np.array(class_names),
    )
