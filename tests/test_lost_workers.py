"""Work on a cluster whose workers die, are cut off, are replaced, or never come."""

import time
from pathlib import Path

import pytest

from iirc_data.cluster import cluster_executor
from iirc_data.cluster.environment import differences, environment
from iirc_data.errors import ClusterError, LostWorkersError, ShardError
from iirc_data.shards import write_shards
from iirc_data.shards.unfinished import begin, sole_writer_of_class
from iirc_data.sources import open_folder
from tests.cluster_tasks import Deadly, double, double_after, write_alone
from tests.worker_processes import worker_processes

distributed = pytest.importorskip("distributed")
KilledWorker = distributed.scheduler.KilledWorker


@pytest.fixture(scope="module")
def cluster():
    """Workers that are replaced when they die; two deaths of one piece of work are too many."""
    with worker_processes(allowed_failures=1) as cluster:
        yield cluster


@pytest.fixture
def notes(monkeypatch) -> list[str]:
    monkeypatch.setattr("iirc_data.cluster.notes._FIRST_NOTE_SECONDS", 0.05)
    monkeypatch.setattr("iirc_data.cluster.notes._TICK", 0.05)
    return []


@pytest.fixture
def executor(cluster, notes):
    with cluster_executor(cluster.scheduler_address, notes.append) as executor:
        yield executor


def wait_until(condition) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_shards_survive_lost_workers_and_only_a_class_that_kills_every_worker_fails(
    tiny_folder, tiny_store, tmp_path, executor
):
    out, kept = tmp_path / "out", []
    source = Deadly(open_folder(tiny_folder), {"cat": 1, "bus": 100}, tmp_path)
    with pytest.raises(ShardError) as told:
        write_shards(source, out, executor=executor)
    assert "1 of 12 classes are not written (train/bus: 2 workers in turn" in str(told.value)
    assert "more memory" in str(told.value)
    assert (tmp_path / "train-cat").exists()
    assert not (out / "manifest.json").exists()

    source.kills["bus"] = 0
    write_shards(source, out, executor=executor, progress=lambda job, r: kept.append(r.is_kept))
    assert sorted(kept) == [False] + 11 * [True]
    assert files(out) == files(tiny_store.root)


def test_only_work_that_advances_is_never_given_up(cluster, monkeypatch):
    lost = KilledWorker("work", cluster.scheduler.workers.copy().popitem()[1].clean(), 3)
    attempts = []

    async def attempt(self, work):
        attempts.append(work)
        if len(attempts) < 7:
            raise lost
        return "done"

    monkeypatch.setattr("iirc_data.cluster.executor.ClusterExecutor._attempt", attempt)
    address, advance = cluster.scheduler_address, lambda *arguments: len(attempts)
    with cluster_executor(address, print, advance) as executor:
        assert executor.submit(double, 1).result() == "done"
    attempts.clear()
    with (
        cluster_executor(address, print) as executor,
        pytest.raises(LostWorkersError, match="4 workers in turn were lost"),
    ):
        executor.submit(double, 1).result()
    assert len(attempts) == 2


def test_a_worker_that_is_cut_off_and_still_writes_is_waited_for(tmp_path, cluster, executor):
    path, until = tmp_path / "lines", tmp_path / "until"
    work = executor.submit(write_alone, path, until)
    wait_until(path.exists)
    (worker,) = [w.address for w in list(cluster.scheduler.workers.values()) if w.processing]
    cluster.sync(cluster.scheduler.remove_worker, worker, stimulus_id="cut", close=False)
    wait_until(lambda: path.read_text().count("begins") == 2)
    until.touch()
    first, first_end, second, second_end = work.result().splitlines()
    assert first.replace("begins", "ends") == first_end
    assert second.replace("begins", "ends") == second_end
    assert first != second


def test_what_is_unfinished_stops_with_the_command(tmp_path, cluster):
    with (
        pytest.raises(KeyboardInterrupt),
        cluster_executor(cluster.scheduler_address, print) as executor,
    ):
        executor.submit(double_after, 1, tmp_path / "never")
        wait_until((tmp_path / "waiting").exists)
        raise KeyboardInterrupt
    wait_until((tmp_path / "waited").exists)
    with cluster_executor(cluster.scheduler_address, print) as executor:
        assert executor.submit(double, 2).result() == 4


def test_work_starts_again_when_the_scheduler_is_lost_for_a_moment(tmp_path, cluster, executor):
    work = executor.submit(double_after, 4, tmp_path / "go")
    wait_until((tmp_path / "waiting").exists)
    for connection in list(cluster.scheduler.client_comms.values()):  # its thread changes it
        cluster.loop.add_callback(connection.comm.abort)
    wait_until((tmp_path / "waited").exists)
    (tmp_path / "go").touch()
    assert work.result() == 8


def test_missing_workers_are_reported_and_later_ones_get_the_work(cluster, executor, notes):
    cluster.scale(0)
    wait_until(lambda: not cluster.scheduler.workers)
    work = executor.submit(double, 5)
    wait_until(lambda: notes)
    assert "no worker is connected" in notes[0] and "1 tasks wait" in notes[0]
    assert f"`dask worker {cluster.scheduler_address}`" in notes[0]
    cluster.scale(2)
    assert work.result() == 10


def test_a_worker_with_other_versions_is_refused(cluster, executor, notes, monkeypatch):
    theirs = environment().copy()
    mine = theirs | {"numpy": "1.0", "only-here": "1"}
    message = f"numpy {theirs['numpy']} instead of 1.0"
    assert differences(mine, theirs) == message
    wait_until(lambda: cluster.scheduler.workers)
    monkeypatch.setitem(environment(), "numpy", "1.0")
    with (
        pytest.raises(ClusterError, match=f"{message}: install the same versions"),
        cluster_executor(cluster.scheduler_address, print),
    ):
        pass
    monkeypatch.undo()
    answers = iter([mine])
    monkeypatch.setattr("iirc_data.cluster.executor.environment", lambda: next(answers, theirs))
    assert executor.submit(double, 6).result() == 12  # by a worker that is found fit
    assert message in next(note for note in notes if note.startswith("no work for"))


def test_a_scheduler_that_stays_away_ends_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("iirc_data.cluster.connection._RECONNECT_SECONDS", 0.2)
    cluster = distributed.LocalCluster(
        n_workers=1, processes=False, protocol="tcp", dashboard_address=None
    )
    with cluster_executor(cluster.scheduler_address, print) as executor:
        work = executor.submit(double_after, 1, tmp_path / "never")
        wait_until((tmp_path / "waiting").exists)
        cluster.close()
        with pytest.raises(ClusterError, match="the scheduler is lost"):
            work.result()


def test_a_writer_of_an_earlier_command_or_in_another_folder_is_refused(tmp_path):
    old = begin(tmp_path / "out", ["train"])
    new = begin(tmp_path / "out", ["train"])
    with sole_writer_of_class(tmp_path / "out", "train", "dog", new):
        pass
    for folder, session in ((tmp_path / "out", old), (tmp_path / "elsewhere", new)):
        with (
            pytest.raises(ShardError, match="give a folder that all machines share"),
            sole_writer_of_class(folder, "train", "dog", session),
        ):
            pass
    assert not (tmp_path / "elsewhere").exists()
