"""``python -m tests.faults``: the long version (``make faults``)."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tests.faults.campaign import Campaign, Tally
from tests.faults.commands import commands, on_clusters
from tests.faults.lost_readers import SHARES, LostReaders, remote_dataset
from tests.faults.lost_workers import LostWorkers
from tests.worker_processes import worker_processes

BETWEEN = "between writes"


def main(
    kills: Annotated[
        int, typer.Option(help="Kills of each command, and of workers that it uses on a cluster.")
    ] = 30,
    failures: Annotated[int, typer.Option(help="Failing writes of each command.")] = 10,
    damages: Annotated[int, typer.Option(help="Lost or altered files of each command.")] = 10,
    only: Annotated[list[str] | None, typer.Option(help="Only the command of this name.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    report: Annotated[Path, typer.Option(help="JSON file for the counts.")] = Path("faults.json"),
) -> None:
    """Kill every command, fail its writes and damage its files; print the counts and problems."""
    console = Console()
    tallies: dict[str, Tally] = {}

    def done(name: str, tally: Tally) -> None:
        tallies[name] = tally
        console.print(f"{name}: {len(tally.problems)} problems")
        report.write_text(json.dumps({n: vars(t) for n, t in tallies.items()}, indent=1))

    def is_chosen(name: str, *, has_trials: bool = True) -> bool:
        return has_trials and (not only or name in only)

    with tempfile.TemporaryDirectory(prefix="iirc-faults-") as name:
        folder = Path(name)
        (folder / "raw").mkdir()
        with commands(folder / "raw") as found:
            for command in found.values():
                if is_chosen(command.name):
                    campaign = Campaign(command, folder / command.name.replace(" ", "-"), seed)
                    campaign.kill(kills)
                    campaign.fail(failures)
                    campaign.damage(damages)
                    done(command.name, campaign.tally)
            with remote_dataset(folder / "remote") as remote:
                for name, share in SHARES.items():
                    if is_chosen(name, has_trials=kills > 0):
                        readers = LostReaders(remote, folder / name.replace(" ", "-"), seed, share)
                        readers.kill(kills)
                        done(name, readers.tally)
            for command in on_clusters(found, folder / "raw"):
                name = f"{command.name} on a cluster"
                if is_chosen(name, has_trials=kills > 0):
                    with worker_processes() as cluster:
                        lost = LostWorkers(command, folder / name.replace(" ", "-"), seed, cluster)
                        lost.lose(kills)
                    done(name, lost.tally)
    console.print(_table(tallies))
    console.print(_histogram(tallies))
    problems = [problem for tally in tallies.values() for problem in tally.problems]
    for problem in problems:
        console.print(problem, markup=False)
    n_kills = sum(tally.kills for tally in tallies.values())
    console.print(f"{n_kills} kills, {len(problems)} lost or corrupt")
    raise typer.Exit(bool(problems))


def _table(tallies: dict[str, Tally]) -> Table:
    table = Table("command", "kills", "failing writes", "damaged files", "refused", "problems")
    for name, tally in tallies.items():
        numbers = tally.kills, tally.failures, tally.damages, tally.refused, len(tally.problems)
        table.add_row(name, *map(str, numbers))
    return table


def _histogram(tallies: dict[str, Tally]) -> Table:
    moments = sum((tally.moments for tally in tallies.values()), Counter())
    total = max(moments.total(), 1)
    during = total - moments[BETWEEN]
    table = Table(
        "killed while writing", "kills", "", caption=f"{during / total:.0%} during writes"
    )
    for moment, n in moments.most_common():
        table.add_row(moment, str(n), "█" * round(40 * n / moments.most_common(1)[0][1]))
    return table


if __name__ == "__main__":
    typer.run(main)
