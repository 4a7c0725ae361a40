"""Writing shards: reproducible tars of one class; only finished files have final names."""

from collections.abc import Callable
from concurrent.futures import Executor, as_completed
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iirc_data.cluster.attempt import stop_if_abandoned
from iirc_data.errors import LostWorkersError, ShardError
from iirc_data.files import sync_folder
from iirc_data.shards import blocks
from iirc_data.shards.class_writer import (
    DEFAULT_MAX_SHARD_SIZE,
    ShardedClass,
    WriteSettings,
    write_class,
    writing,
)
from iirc_data.shards.manifest import MANIFEST_NAME, Manifest, Shard
from iirc_data.shards.preconditions import check_before_writing
from iirc_data.shards.table import SampleTable
from iirc_data.shards.unfinished import (
    begin,
    clearing_partial_files,
    forget,
    load_receipt,
    remove_strays,
    save_receipt,
    sole_writer,
    sole_writer_of_class,
)
from iirc_data.shards.workers import for_worker_processes, process_pool
from iirc_data.sources.base import Source


class Job(NamedTuple):
    """One class of one split."""

    split: str
    class_name: str


Progress = Callable[[Job, ShardedClass], None]
"""Called with each finished class."""


def write_shards(
    source: Source,
    out: Path,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    max_shard_size: int = DEFAULT_MAX_SHARD_SIZE,
    check_decode: bool = False,
    progress: Progress = lambda job, result: None,
) -> Manifest:
    """Write a dataset as per-class tar shards with sample table and manifest.

    The manifest is written last: a folder without a manifest is not a dataset. Calling this
    function again resumes an interrupted or killed run; classes that it finished are kept if the
    digests of their tars match. The same input gives the same files for any ``workers`` and
    ``executor``.

    Args:
        source: The raw dataset.
        out: Shard folder; must not contain a finished dataset.
        workers: Number of processes; each writes one class at a time.
        executor: Executor that writes the classes instead, for example of a ``dask.distributed``
            cluster; it must see the same files. It is not shut down. That of
            :func:`~iirc_data.cluster.cluster_executor` survives the loss of workers.
        max_shard_size: Bytes of image data after which a class continues in another tar.
        check_decode: Decode every image fully, to find damaged images.
        progress: Called with every finished class.

    Returns:
        The manifest that was written.

    Raises:
        SourceError: An input file is not an image, or two input files share a key; the message
            names the files. Or the names of two classes differ only in case, accents or outer
            blanks.
        ShardError: ``out`` contains a dataset, is being written by another process, cannot be
            written, or overlaps with the source's inputs; worker processes cannot import the
            source's class; or every worker that took a class was lost.
    """
    if workers < 1:
        raise ShardError(f"workers must be at least 1, got {workers}")
    found = source.classes()
    jobs = [Job(split, name) for split, names in sorted(found.items()) for name in names]
    check_before_writing(source, out)
    run = partial(shard_class, source, out.absolute(), WriteSettings(max_shard_size, check_decode))
    sent = for_worker_processes(run) if workers > 1 and executor is None else run
    with sole_writer(out):
        if (out / MANIFEST_NAME).exists():
            forget(out)
            raise ShardError(
                f"{out} already holds a finished dataset: give another folder or remove it"
            )
        run = partial(sent, begin(out, found))
        results: dict[Job, ShardedClass] = {}

        def keep(job: Job, result: ShardedClass) -> None:
            results[job] = result
            progress(job, result)

        if executor is not None:
            with clearing_partial_files(out):
                _run_on(executor, run, jobs, keep)
        elif workers > 1:
            with clearing_partial_files(out), process_pool(workers) as pool:
                _run_on(pool, run, jobs, keep)
        else:
            for job in jobs:
                keep(job, run(job))
        table, manifest = _describe(source.name, {job: results[job] for job in jobs})
        with writing(out):
            remove_strays(out, manifest.shards)
            for folder in {(out / shard.path).parent for shard in manifest.shards}:
                sync_folder(folder)
            table.save(out)
            if blocks.need_checksums(manifest):
                digests = blocks.as_checksums([d for job in jobs for d in results[job].blocks])
                blocks.BlockChecksums(blocks.BLOCK_SIZE, digests).save(out, manifest)
            manifest.save(out)
        forget(out)
    return manifest


def shard_class(
    source: Source, out: Path, settings: WriteSettings, session: str, job: Job
) -> ShardedClass:
    """Write one class, unless an earlier run has finished it.

    Raises:
        SourceError: See :func:`~iirc_data.shards.class_writer.write_class`.
        ShardError: See :func:`~iirc_data.shards.class_writer.write_class` and
            :func:`~iirc_data.shards.unfinished.sole_writer_of_class`.
        AbandonedError: See :func:`~iirc_data.shards.unfinished.sole_writer_of_class`.
    """
    fingerprint = f"{source.fingerprint(*job)} {settings}"
    with sole_writer_of_class(out, *job, session):
        kept = load_receipt(out, *job, fingerprint)
        if kept is not None:
            return kept
        result = write_class(source, out, *job, settings, check=stop_if_abandoned)
        save_receipt(out, *job, fingerprint, result)
    return result


def _run_on(
    executor: Executor,
    run: Callable[[Job], ShardedClass],
    jobs: list[Job],
    done: Callable[[Job, ShardedClass], None],
) -> None:
    """Run jobs; one whose workers are lost does not stop the others."""
    futures = {executor.submit(run, job): job for job in jobs}
    failed = []
    try:
        for future in as_completed(futures):
            job = futures[future]
            try:
                done(job, future.result())
            except LostWorkersError as error:
                failed.append(f"{job.split}/{job.class_name}: {error}")
    finally:
        for future in futures:
            future.cancel()
    if failed:
        raise ShardError(
            f"{len(failed)} of {len(jobs)} classes are not written ({'; '.join(sorted(failed))}); "
            "the others are finished and kept: run the same command again, with other workers"
        )


def _describe(dataset: str, results: dict[Job, ShardedClass]) -> tuple[SampleTable, Manifest]:
    classes = sorted({job.class_name for job in results})
    splits: dict[str, list[Shard]] = {}
    parts = []
    n_shards = 0
    for job, result in results.items():
        splits.setdefault(job.split, []).extend(result.shards)
        class_id = np.full((len(result.rows), 1), classes.index(job.class_name))
        parts.append(np.hstack([class_id, result.rows]))
        parts[-1][:, 1] += n_shards
        n_shards += len(result.shards)
    names = ("class_id", "shard", "offset", "size", "height", "width", "mode")
    table = SampleTable.from_columns(dict(zip(names, np.concatenate(parts).T, strict=True)))
    manifest = Manifest(
        dataset=dataset,
        image_formats=sorted(set().union(*(result.image_formats for result in results.values()))),
        classes=classes,
        splits=splits,
        table_sha256=table.digest(),
    )
    return table, manifest.model_copy(update={"digest": manifest.compute_digest()})
