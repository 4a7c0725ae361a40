"""``record.json`` of a run: the data it saw, and for each session where, when and with what."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iirc_data.definitions import SplitName
from iirc_data.errors import ConfigurationError
from iirc_data.files import write_json
from iirc_data.shards.sample_store import SampleStore
from iirc_data.shards.store import ShardStore
from iirc_data.task_sequence import TaskSequence
from iirc_train.run.directory import RECORD_NAME
from iirc_train.run.provenance import Surroundings, now, version_changes
from iirc_train.run.resolved import WEIGHTS_DIGEST
from iirc_train.runtime.distributed import rank
from iirc_train.runtime.peak_memory import peak_memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeenData:
    """What a run sees of a dataset, in digests.

    Attributes:
        dataset: The dataset's ``name`` and ``digest``. A union of several also has ``datasets``:
            the name and digest of each, by the name that the benchmark gives it.
        task_views: Split to the digest of each task's view.
    """

    dataset: dict[str, Any]
    task_views: dict[str, list[str]]

    @classmethod
    def of(cls, store: SampleStore, splits: Mapping[SplitName, TaskSequence]) -> "SeenData":
        """Compute the digests.

        Args:
            store: The dataset, or the union of several.
            splits: The tasks of each split.
        """
        return cls(
            _described(store),
            {
                split: [sequence.view(task).digest() for task in range(len(sequence))]
                for split, sequence in splits.items()
            },
        )


def _described(store: SampleStore) -> dict[str, Any]:
    datasets = {
        name: {"name": part.manifest.dataset, "digest": part.digest}
        for name, part in store.datasets.items()
    }
    if isinstance(store, ShardStore):
        return datasets[store.manifest.dataset]
    return {"name": " + ".join(datasets), "digest": store.digest, "datasets": datasets}


@contextmanager
def recorded(
    run: Path,
    data: SeenData,
    surroundings: Surroundings,
    position: Mapping[str, int],
    preset: str | None = None,
) -> Iterator[None]:
    """Record a session of a run: its start, and its end if the block ends without an error.

    Only the first of several processes writes, and logs what has changed since the run started.

    Args:
        run: The run's folder.
        data: What the run sees; written in its first session.
        surroundings: What this session computes with.
        position: Where the run stands when the session starts.
        preset: Name of the preset that the settings started from; written in the first session.
    """
    if rank() > 0:
        yield
        return
    has_record = (run / RECORD_NAME).exists()
    first = {**vars(data), **({} if preset is None else {"preset": preset}), "sessions": []}
    record: dict[str, Any] = read_record(run) if has_record else first
    session = {"started": now(), "position": dict(position), **surroundings.described()}
    record["sessions"].append(session)
    note_versions(record)
    if changes := surroundings.changes:
        logger.warning("note: the run resumes with %s", changes)
    write_json(run / RECORD_NAME, record)
    yield
    session |= {"finished": now(), **peak_memory(surroundings.device)}
    write_json(run / RECORD_NAME, record)


def note_versions(record: Mapping[str, Any]) -> None:
    """Log how the installed versions differ from those that a recorded run started with."""
    if changes := version_changes(record["sessions"][0]["versions"]):
        logger.warning("note: versions have changed since the run started: %s", changes)


def read_record(run: Path) -> dict[str, Any]:
    """Read ``record.json`` of a run's folder.

    Raises:
        ConfigurationError: The file is missing or damaged.
    """
    path = run / RECORD_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        # a branch that was created, but not trained yet, has no session
        first = record["sessions"][0] if record["sessions"] or "parent" not in record else None
        if first is not None and not isinstance(first["versions"], dict):
            raise ValueError("its versions are missing")
        if not isinstance(record["task_views"], dict) or "dataset" not in record:
            raise ValueError("its data is missing")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        problem = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ConfigurationError(f"{path} is not readable: {problem}") from error
    return dict(record)


def is_finished(run: Path) -> bool:
    """Return whether a folder holds a run that was trained to its end, as its record states.

    Raises:
        ConfigurationError: The record is damaged.
    """
    if not (run / RECORD_NAME).exists():
        return False
    return any("finished" in session for session in read_record(run)["sessions"])


def check_same_data(record: Mapping[str, Any], found: SeenData) -> None:
    """Check that a run would see the data that a recorded run saw.

    Args:
        record: The run's record.
        found: The data at hand.

    Raises:
        ConfigurationError: The dataset or a task view differs.
    """
    before, now = dict(record["dataset"]), found.dataset
    if before != now:
        parts, our_parts = before.get("datasets", {}), now.get("datasets", {})
        for name in our_parts:  # report the one that differs, rather than all together
            if name in parts and parts[name] != our_parts[name]:
                before, now = parts[name], our_parts[name]
                break
        raise ConfigurationError(
            "the run was made with dataset {name}, digest {digest}; ".format_map(
                {"name": "?", "digest": "?"} | before
            )
            + "here is dataset {name}, digest {digest}".format_map(now)
        )
    for split, views in found.task_views.items():
        if record["task_views"].get(split) != views:
            raise ConfigurationError(
                f"the run saw other {split} samples or labels: the benchmark file or the version "
                "of this package has changed"
            )


def check_same_weights(record: Mapping[str, Any], digest: str | None) -> None:
    """Check that a run would start from the weights that a recorded run started from.

    Args:
        record: The run's record.
        digest: Digest of the weights at hand; None for random ones.

    Raises:
        ConfigurationError: They differ.
    """
    before = _first_resolved(record).get(WEIGHTS_DIGEST)
    if before != digest:
        raise ConfigurationError(
            f"the run started from weights with digest {before}, here they have digest {digest}: "
            "give the original file with --weights, or install the library's version that the "
            "record names"
        )


def recorded_precision(record: Mapping[str, Any]) -> str | None:
    """Return the arithmetic that a run started with; None if an earlier release recorded it."""
    return _first_resolved(record).get("precision")


def resolved_values(
    record: Mapping[str, Any], name: str, *, last_task: int | None = None
) -> list[Any]:
    """Return what a setting resolved to in the sessions of a run: each value once, in order.

    Args:
        record: The run's record. Sessions of an earlier release may lack the value.
        name: Name of the value.
        last_task: Leave out the sessions that started after this task; None for none.
    """
    resolved = (
        _resolved(session)
        for session in record["sessions"]
        if last_task is None or session["position"]["task_id"] <= last_task
    )
    return list(dict.fromkeys(values[name] for values in resolved if name in values))


def _first_resolved(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return _resolved(record["sessions"][0]) if record["sessions"] else {}


def _resolved(session: Mapping[str, Any]) -> Mapping[str, Any]:
    resolved = session.get("resolved", {})
    return resolved if isinstance(resolved, dict) else {}
