"""The training loop: view → loader → method ↔ buffer → metrics, the same for every method."""

import time
from typing import Any

import torch
from rich.console import Console

from iirc_data.definitions import INTASK_VALID, TRAIN
from iirc_data.errors import CheckpointError, TrainingError
from iirc_data.loader import Loader
from iirc_data.task_view import TaskView
from iirc_train.buffer.choice import Choice
from iirc_train.methods.stages import Stage
from iirc_train.metrics import MAIN_METRIC
from iirc_train.run.checkpoint import load_checkpoint, save_checkpoint, taking_over
from iirc_train.run.directory import METRICS_NAME, RunDirectory
from iirc_train.run.record import is_finished, recorded
from iirc_train.run.resolved import note_slow_precision
from iirc_train.run.trackers import (
    TENSORBOARD_ONLY,
    Tracker,
    Tracking,
    epoch_scalars,
    summary_scalars,
    task_scalars,
    trackers,
)
from iirc_train.runtime.distributed import any_process, largest, rank, wait_for_all, world_size
from iirc_train.runtime.peak_memory import peak_memory
from iirc_train.runtime.progress import RunProgress, run_progress
from iirc_train.runtime.random_state import random_states_of_all, set_own_random_state
from iirc_train.runtime.stopping import StopRequest
from iirc_train.runtime.waiting import Waiting
from iirc_train.training.checkpoint_timer import CheckpointTimer
from iirc_train.training.components import Experiment
from iirc_train.training.epoch import PartialEpoch, train_epoch
from iirc_train.training.evaluation import evaluate, evaluate_after_task
from iirc_train.training.task_data import TaskData
from iirc_train.training.task_parts import (
    PartLoaders,
    Position,
    TaskPart,
    parts_of_task,
)
from iirc_train.training.task_record import task_record

HERDING_BATCH_SIZE = 128


class Training:
    """One experiment's way through its tasks; :meth:`restore` comes first, then :meth:`run`.

    Args:
        experiment: Data, method and buffer, all new.
        run: The run's folder; it stays as it is until :meth:`restore`.
        preset: Name of the preset that the settings started from, for the record.

    Attributes:
        position: Where the run stands.
    """

    def __init__(
        self, experiment: Experiment, run: RunDirectory, preset: str | None = None
    ) -> None:
        self.experiment = experiment
        self._preset = preset
        self.config = experiment.config
        self.method = experiment.method
        self.run_directory = run
        self.position = Position()
        self._best: dict[str, Any] | None = None
        self._partial_epoch: dict[str, Any] = {}
        self._choice: Choice | None = None
        self._n_steps: int | None = 0
        self._first_epoch = 0  # of the task, counted across tasks
        self._herding_batch_size = HERDING_BATCH_SIZE
        self._timer = CheckpointTimer(self.config.checkpoint_every)
        self._stop = StopRequest(experiment.device)
        self._trackers: list[Tracker] = []

    def restore(self) -> None:
        """Take up the run where its folder stands: at its last checkpoint, or at its beginning.

        Removes the metrics, times and confusion counts that were written after that.

        Raises:
            CheckpointError: The checkpoint is damaged, is of other data, or is missing though
                there are results; the folder is left as it was.
        """
        run, experiment = self.run_directory, self.experiment
        if run.checkpoint.exists():
            state = load_checkpoint(run.checkpoint)
            if "experiment" not in state:
                raise CheckpointError(f"{run.checkpoint} is not a checkpoint of a run")
            with taking_over(run.checkpoint):
                self.position = Position(*map(int, state["position"]))
                self._best = state["best"]
                self._n_steps = state.get("steps")  # earlier releases saved none
                if "choice" in state:
                    self._choice = Choice(*(state["choice"][n].numpy() for n in Choice._fields))
                if self.position.samples:
                    self._partial_epoch = state["epoch"]
                experiment.load_state_dict(state["experiment"])
                set_own_random_state(state.get("random", []), experiment.device)
                run.rewind(state["sizes"], state["metrics_digest"])
        else:
            if run.has_results():
                raise CheckpointError(
                    f"{run.path} holds results but no {run.checkpoint.name}: restore that file, or "
                    "start the run again in another folder"
                )
            experiment.buffer.load_buffer_state_dict({"generation": 0, "counts": {}})
            run.rewind({})
        run.forget_confusions(self.position.task_id)

    @property
    def is_finished(self) -> bool:
        """Whether the run was trained to its end, and its record says so."""
        all_done = self.position.task_id == self.experiment.n_tasks
        return all_done and is_finished(self.run_directory.path)

    def run(self, console: Console | None = None, tracking: Tracking = TENSORBOARD_ONLY) -> None:
        """Learn the remaining tasks, evaluating after each.

        Args:
            console: Where progress is shown; None logs it to the logger ``iirc_train``.
            tracking: What else follows the run.

        Raises:
            KeyboardInterrupt: The user asked to stop; a checkpoint was written.
        """
        n_tasks = self.experiment.n_tasks
        path, (task_id, epochs, _) = self.run_directory.path, self.position
        title = f"{self.config.method} on {self.experiment.benchmark.name}"
        console = console if rank() == 0 else Console(quiet=True)
        if self.is_finished:
            return
        if rank() == 0:
            note_slow_precision(self.experiment.precision, self.experiment.device)
        data = self.experiment.seen_data
        first_epoch = self.method.first_epoch_of_task(task_id) + epochs
        with (
            recorded(path, data, self.experiment.surroundings, self.position.plain(), self._preset),
            trackers(tracking, path, self.config, first_epoch, task_id) as self._trackers,
            StopRequest(self.experiment.device) as self._stop,
            run_progress(console, title, n_tasks, task_id) as progress,
        ):
            while (task_id := self.position.task_id) < n_tasks:
                self.learn_task(progress)
                progress.task_done(task_id, self._evaluate(task_id))
                self._save(Position(task_id + 1))
                self.experiment.buffer.collect_garbage()
                if self._stop.check():
                    self._stop.stop()

    def learn_task(self, progress: RunProgress) -> None:
        """Train on the next task, resuming after what is already trained; then choose memories.

        Raises:
            TrainingError: The loss became NaN or infinite.
        """
        experiment, start = self.experiment, self.position
        self._herding_batch_size = experiment.inference_batch_size(HERDING_BATCH_SIZE)
        task_id = start.task_id
        self._first_epoch = self.method.first_epoch_of_task(task_id)
        view, data = experiment.view(TRAIN, task_id), experiment.task_data(task_id)
        valid = experiment.view(INTASK_VALID, task_id)
        valid_loader = experiment.evaluation_loader(valid, resident=self.config.resident)
        parts = parts_of_task(self.method, task_id)
        loaders = PartLoaders(experiment, view)
        if start.is_within_task:
            if self._n_steps is None:
                self._n_steps = start.epochs * len(loaders.loader(parts[0], None))
            memory_batches = experiment.memory_batches(view, self._n_steps)
            self.method.task_data = data
            self.method.resume_task(memory_batches=memory_batches)
        else:
            self._n_steps, self._best, self._choice = 0, None, None
        has_taken = self.method.memories_only
        if has_taken and not start.is_within_task:
            self._take_memories(data)
        for part in parts:
            if part.takes_memories and not has_taken:
                has_taken = True
                if not part.has_started(start):
                    self._take_memories(data)
            if part.is_over(start):
                continue
            if not part.has_started(start):
                self._choice = self.method.choose_samples(
                    part.stage, data, experiment.buffer, self._herding_batch_size
                )
            loader = loaders.loader(part, self._choice)
            if not part.has_started(start):
                self._start_part(part, view, data)
            experiment.connect_network()
            experiment.announce_task(task_id + 1, self._first_epoch + parts[-1].stop)
            part.show(progress, data.cur_task, start, len(loader), self.config.batch_size)
            self._learn_part(part, loader, valid_loader if len(valid) else None, progress)
        if not has_taken:
            self._take_memories(data)
        memories, batch_size = experiment.memory_data(task_id), self._herding_batch_size
        self.method.consolidate_task_knowledge(
            buffer=memories, device=experiment.device, batch_size=batch_size
        )
        if self.config.calibrate_thresholds:
            self.method.calibrate(memories, batch_size)

    def _take_memories(self, data: TaskData) -> None:
        self.experiment.buffer.update_buffer_new_task(
            data, method=self.method, batch_size=self._herding_batch_size
        )

    def _start_part(self, part: TaskPart, view: TaskView, data: TaskData) -> None:
        batch_size, experiment = self._herding_batch_size, self.experiment
        memories = experiment.memory_data(view.seen_up_to)
        if part.stage is None:
            self.method.prepare_model_for_new_task(
                data,
                buffer=memories,
                batch_size=batch_size,
                memory_batches=experiment.memory_batches(view),
            )
        else:
            self.method.prepare_stage(data, buffer=memories, batch_size=batch_size)

    def _learn_part(
        self,
        part: TaskPart,
        loader: Loader,
        valid_loader: Loader | None,
        progress: RunProgress,
    ) -> None:
        """Train the epochs of a part that are left, and end it."""
        task_id, epochs_done, _ = self.position
        interval = self.config.checkpoint_interval
        for epoch in range(max(part.first, epochs_done), part.stop):
            is_last = epoch + 1 == part.stop
            self._learn_epoch(task_id, epoch, part.stage, loader, progress, is_last=is_last)
            metrics = evaluate(self.method, valid_loader) if valid_loader is not None else None
            self._end_epoch(task_id, epoch, part.stage, metrics)
            stops, due = self._agreed()
            if stops or due or (interval and not (epoch + 1) % interval):
                self._save(Position(task_id, epoch + 1))
            if stops:
                self._stop.stop()
        if part.stage is not None:
            self.method.finish_stage()
        elif self._best is not None:
            for name, module in self.method.modules_of_best.items():
                if name in self._best:
                    module.load_state_dict(self._best[name])
            self._best = None

    def _learn_epoch(
        self,
        task_id: int,
        epoch: int,
        stage: Stage | None,
        loader: Loader,
        progress: RunProgress,
        *,
        is_last: bool,
    ) -> None:
        run, device = self.run_directory, self.experiment.device
        waiting = Waiting.on(device)
        before, self._partial_epoch = self._partial_epoch, {}
        partial = PartialEpoch(self.method, loader.n_samples, self.config.batch_size)
        if before:
            partial.load_state_dict(before["yields"], self.position.samples)
        loader.set_epoch(self._first_epoch + epoch, partial.n_steps, is_last=is_last)
        started = time.perf_counter() - before.get("seconds", 0.0)

        def costs() -> dict[str, float]:
            seconds = time.perf_counter() - started
            waited = before.get("waited", 0.0) + largest(waiting.seconds(), device)
            return {"seconds": seconds, "waited": waited}

        def after_step() -> None:
            self._n_steps = (self._n_steps or 0) + 1
            self._timer.step_done()
            stops, due = self._agreed() if partial.can_stop else (False, False)
            if stops or due:
                state = {"yields": partial.state_dict(), **costs()}
                self._save(Position(task_id, epoch, partial.n_samples_done), state)
            if stops:
                self._stop.stop()

        lr = self.method.get_epoch_lr()[0]
        where = _where(task_id, epoch, stage)
        record = {**where, "lr": lr}
        try:
            record |= train_epoch(
                self.experiment, loader, progress, waiting, epoch=partial, after_step=after_step
            )
        except TrainingError as error:
            place = ", ".join(f"{name} {value}" for name, value in where.items())
            raise TrainingError(
                f"{self.config.method}, {place}, learning rate {lr:g}: {error}; "
                f"{self.method.remedy()}. {self._last_checkpoint()}"
            ) from None
        spent = costs()
        run.add_metrics(kind="epoch", split=TRAIN, **record)
        run.add_timing(
            **where,
            seconds=spent["seconds"],
            images=loader.n_samples,
            waited=spent["waited"],
            **peak_memory(device),
        )
        speed, share = loader.n_samples / spent["seconds"], spent["waited"] / spent["seconds"]
        progress.epoch_done(record, speed, share)
        for tracker in self._trackers:
            shown = {"images per second": speed, "waiting share": share}
            scalars = {**epoch_scalars(TRAIN, record), **shown}
            tracker.epoch_done(self._first_epoch + epoch, scalars)

    def _agreed(self) -> tuple[bool, bool]:
        """Return whether to stop, and whether a checkpoint is due; the same in all processes."""
        flags = [self._stop.is_asked, rank() == 0 and self._timer.is_due]
        stops, due = any_process(flags, self.experiment.device)
        return stops, due

    def _last_checkpoint(self) -> str:
        if not self.run_directory.checkpoint.exists():
            return "There is no checkpoint yet"
        task_id, epochs, samples = self.position
        return (
            f"The last checkpoint, {self.run_directory.checkpoint}, is of task {task_id} after "
            f"{epochs} epochs" + (f" and {samples:,} samples" if samples else "")
        )

    def _end_epoch(
        self, task_id: int, epoch: int, stage: Stage | None, metrics: dict[str, float] | None
    ) -> None:
        val_metric = None
        if metrics is not None:
            record = {**_where(task_id, epoch, stage), **metrics}
            self.run_directory.add_metrics(kind="epoch", split=INTASK_VALID, **record)
            for tracker in self._trackers:
                number = self._first_epoch + epoch
                tracker.epoch_done(number, epoch_scalars(INTASK_VALID, record))
            val_metric = metrics[MAIN_METRIC]
            if stage is None:
                self._keep_best(val_metric)
        self.method.consolidate_epoch_knowledge(val_metric)

    def _keep_best(self, metric: float) -> None:
        if self.config.use_best_model and (self._best is None or metric >= self._best["metric"]):
            self._best = {"metric": metric}
            for name, module in self.method.modules_of_best.items():
                state = module.state_dict()
                self._best[name] = {key: value.detach().clone() for key, value in state.items()}

    def _evaluate(self, task_id: int) -> dict[str, float]:
        """Evaluate on every task seen so far and over all their classes; write the results.

        Returns:
            The test metrics over all seen classes, each sample counted once.
        """
        experiment = self.experiment
        records, confusion = evaluate_after_task(
            self.method, experiment.splits, task_id, experiment.evaluation_loader
        )
        for record in records:
            self.run_directory.add_metrics(**record)
        self.run_directory.write_confusion(task_id, confusion)
        if rank() == 0:
            path, buffer = self.run_directory.path, experiment.buffer
            record = task_record(path, self.method, buffer, task_id)
            self.run_directory.add_metrics(**record)
            for tracker in self._trackers:
                tracker.task_done(task_id, task_scalars(records) | summary_scalars(record))
        return records[-1]

    def _save(self, position: Position, epoch: dict[str, Any] | None = None) -> None:
        """Write a checkpoint.

        Args:
            position: Where the run stands.
            epoch: State of the current epoch, if the position is within it.
        """
        self.position = position
        run = self.run_directory
        random = random_states_of_all(self.experiment.device) if world_size() > 1 else []
        if rank() == 0:
            self.experiment.buffer.commit_changes()
            sizes = run.sync()
            state = {
                # between epochs as in earlier releases, which refuse a position of three numbers
                "position": tuple(position) if position.samples else tuple(position)[:2],
                "steps": self._n_steps if position.is_within_task else 0,
                "epoch": epoch,
                "experiment": self.experiment.state_dict(),
                "random": random,
                "best": self._best,
                "sizes": sizes,
                "metrics_digest": run.metrics_digest(sizes[METRICS_NAME]),
            }
            if position.is_within_task and self._choice is not None:
                choice = self._choice._asdict().items()
                state["choice"] = {name: torch.from_numpy(chosen) for name, chosen in choice}
            # first, because a run resumes after its last checkpoint, and would not write it again
            if self.config.save_each_task_model and not position.is_within_task:
                save_checkpoint(run.task_checkpoint(position.task_id - 1), state)
            save_checkpoint(run.checkpoint, state)
        self._timer.saved()
        wait_for_all()


def _where(task_id: int, epoch: int, stage: Stage | None) -> dict[str, Any]:
    """Return the names of an epoch in a record."""
    where: dict[str, Any] = {"task": task_id, "epoch": epoch}
    return where if stage is None else {**where, "stage": stage.name}
