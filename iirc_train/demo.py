"""The demonstration: two methods on a drawn dataset, with a report, in minutes."""

from pathlib import Path

from rich.console import Console

from iirc_data.shards import ShardStore, write_shards
from iirc_data.shards.manifest import MANIFEST_NAME
from iirc_data.sources.drawn import DrawnSource
from iirc_train.config.experiment import ExperimentConfig
from iirc_train.report.comparison import compare
from iirc_train.report.page import write_report
from iirc_train.report.runs import find_runs
from iirc_train.report.tables import comparison_tables, task_tables
from iirc_train.report.wide_tables import print_tables, terminal_width
from iirc_train.run.results import RunResults, read_results
from iirc_train.runtime.lines import print_line
from iirc_train.training.launch import continue_experiment

DEMO_METHODS = {
    "finetune": {"method": "finetune", "n_memories_per_class": 0},
    "icarl_cnn": {"method": "icarl_cnn", "n_memories_per_class": 20, "memory_strength": 4.0},
}


def run_demo(output: Path, seed: int, console: Console) -> list[RunResults]:
    """Draw images, shard them, train two methods on four tasks, and compare the methods.

    Calling it again resumes an interrupted demonstration.

    Args:
        output: Folder for shards, runs and report.
        seed: Seed of all random numbers.
        console: Console for progress and tables.

    Returns:
        The results of ``finetune`` without replay and of ``icarl_cnn`` with 20 memories per
        class.

    Raises:
        IIRCError: ``output`` contains a demonstration with another seed.
    """
    shards = output / "shards"
    if not (shards / MANIFEST_NAME).exists():
        write_shards(DrawnSource(), shards)
    store = ShardStore.open(shards)
    n_shards = len(store.manifest.shards)
    print_line(console, f"{len(store):,} drawn images in {n_shards} shards: {shards}")
    results = []
    for name, settings in DEMO_METHODS.items():
        config = ExperimentConfig(
            benchmark="demo",
            data=str(shards),
            seed=seed,
            epochs_per_task=9,
            batch_size=32,
            threads=1,  # a second one gains nothing with images so small
            n_layers=8,
            optimizer="adam",
            lr=0.005,
            lr_schedule=[7],
            **settings,
        )
        results.append(read_results(continue_experiment(config, output / name, console), name))
    width = terminal_width(console)
    for result in results:
        print_tables(console, task_tables(result, width))
    runs = find_runs([output / name for name in DEMO_METHODS])
    for comparison in compare(runs.by_benchmark()):
        print_tables(console, comparison_tables(comparison, width))
    page = write_report(runs, output)
    print_line(console, f"report: {page}")
    return results
