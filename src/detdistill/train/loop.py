"""Trains a student from the first step to the last, and leaves a run folder."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from detdistill import data
from detdistill.data.damage import Damage
from detdistill.data.stream import Share
from detdistill.errors import UserError
from detdistill.files import read_json, write_json
from detdistill.interop import checkpoint as interop
from detdistill.structures import Batch
from detdistill.train import cache_plan, checkpoint, engine, environment, log, reach
from detdistill.train import experiment as experiments
from detdistill.train.announce import accuracy, announcement
from detdistill.train.assembly import Assembly, build, checkpoints_of, resolved
from detdistill.train.assess import Assessment, assess, facts
from detdistill.train.clock import Clock
from detdistill.train.experiment import Experiment
from detdistill.train.folder import RunFolder, State
from detdistill.train.lock import held
from detdistill.train.log import Journal
from detdistill.train.stop import InterruptedRun, Stop
from detdistill.train.teacher_cache import cache_summary
from detdistill.train.trainer import Trainer

Summary = dict[str, Any]
"""The content of `evaluation.json`."""


def train(
    experiment: Experiment,
    folder: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
) -> Summary:
    """Trains the student of an experiment and evaluates it.

    The student that is saved and evaluated is that of the last step, averaged if the optimizer
    says so; `checkpoints/best` holds the one of the best validation.

    Args:
        experiment: what to train. It is written to the folder with every setting resolved.
        folder: the run folder.
        resume: go on with the run in the folder, or start it if there is none. On a CPU the
            result is bit for bit that of a run that was never stopped.
        overwrite: replace the run in the folder.
        device: `cpu`, `cuda`, ...; None for the best there is.

    Returns:
        The content of `evaluation.json`.

    Raises:
        UserError: something in the experiment or the folder is wrong, or another process trains
            in it; nothing was written.
        NonFiniteError: a loss is not a number.
        InterruptedRun: Ctrl-C or SIGTERM; the run can be resumed.
    """
    experiments.check(experiment)
    if experiment.tensorboard:
        log.check_tensorboard()
    experiment, run = resolved(experiment), RunFolder(Path(folder))
    run.admit(experiment, resume=resume, overwrite=overwrite)
    if overwrite:
        run.spare(checkpoints_of(experiment))
    if resume and run.is_finished:
        return dict(read_json(run.evaluation))
    ranks = engine.start(experiment, device)
    _check_batch(experiment, ranks)
    assembly = build(experiment)
    cache = cache_plan.plan(experiment, assembly)
    with held(run.path, ranks):
        _prepare(run, experiment, ranks, resume=resume, overwrite=overwrite)
        return _Run(experiment, run, assembly, ranks, cache).complete()


def _check_batch(experiment: Experiment, ranks: Accelerator) -> None:
    """Refuses a batch that cannot be divided equally."""
    Share(
        batch_size=experiment.batch_size,
        world=ranks.num_processes,
        accumulate=experiment.accumulate,
    )


def _prepare(
    run: RunFolder, experiment: Experiment, ranks: Accelerator, *, resume: bool, overwrite: bool
) -> None:
    """One rank writes, after all have looked and before any reads.

    It looks once more: another training may have come and gone since.
    """

    def begin() -> None:
        run.admit(experiment, resume=resume, overwrite=overwrite)
        run.prepare(experiment, overwrite=overwrite)

    ranks.wait_for_everyone()
    engine.first(ranks, begin)


class _Run:
    """One run on one rank: the trainer, and the files and words around it."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        assembly: Assembly,
        ranks: Accelerator,
        cache: cache_plan.CachePlan | None,
    ) -> None:
        self.experiment = experiment
        self.folder = folder
        self.assembly = assembly
        self.ranks = ranks
        self.cache = cache
        self.trainer = Trainer(assembly.step, experiment, ranks)
        if cache:
            self.trainer.use_cache(cache.folder, cache.room)
        self.clock = Clock()
        self.unreadable = data.Ledger(assembly.data, experiment.skippable)
        self.best = -1.0
        self.saved_at = 0
        self._restore()
        if ranks.num_processes > 1:
            self._check_same_start()
        self.journal = Journal(
            folder,
            start=self.trainer.done,
            steps=experiment.steps,
            tensorboard=experiment.tensorboard,
            enabled=ranks.is_main_process,
        )
        self.stop = Stop()

    def complete(self) -> Summary:
        """Trains what is left, evaluates, and says in `status.json` how it ended."""
        self._set_status("running")
        try:
            with self.journal, self.stop:
                summary = self._train_and_evaluate()
        except KeyboardInterrupt:
            self._set_status("interrupted")
            raise self._interruption() from None
        except BaseException as error:
            self._set_status("failed")
            self.journal.note(f"failed: {error!r}")
            raise
        self._set_status("finished")
        return summary

    def _train_and_evaluate(self) -> Summary:
        self._announce()
        if self.trainer.done == 0 and self.assembly.methods:
            self._check_reach()
        if self.trainer.done == 0 and self.experiment.keep_every:
            self._keep()
        self._take_steps()
        if used := self.trainer.cache:
            self.journal.say(cache_summary(gather_object([used.counts])))
        return self._evaluate()

    # before the first step

    def _restore(self) -> None:
        state = checkpoint.load(self.folder.last)
        if state is None:
            self._truncate_metrics(0)
            return
        if state["teacher"] != self.assembly.teacher_fingerprint:
            raise UserError(
                f"The teacher {self.experiment.teacher} has other weights than when the run in "
                f"{self.folder.path} began. Restore it, or start again with overwrite."
            )
        self.trainer.restore(state["trainer"])
        known = state.get("unreadable")
        self.unreadable = data.Ledger(self.assembly.data, self.experiment.skippable, known)
        self.best, self.saved_at = state["best"], self.trainer.done
        self.clock = Clock(state["seconds"], state["cpu_seconds"], state["lap"])
        self._truncate_metrics(self.trainer.done)

    def _check_same_start(self) -> None:
        """Machines that do not share the folder would go on from different weights."""
        starts: list[Any] = gather_object([self.trainer.done])
        if len(set(starts)) > 1:
            raise UserError(
                f"The processes find different checkpoints in {self.folder.path} (steps "
                f"{', '.join(map(str, starts))}): the folder must be the same one on all machines."
            )

    def _truncate_metrics(self, step: int) -> None:
        if self.ranks.is_main_process:
            self.folder.truncate_metrics(step)

    def _announce(self) -> None:
        lines = announcement(self.experiment, self.assembly, self.ranks, self.folder.path)
        for line in lines:
            self.journal.say(line)
        if self.cache:
            self.journal.say(f"teacher cache {self.cache.folder}: {self.cache}")
        done = self.trainer.done
        self.journal.say(f"going on after step {done}" if done else "starting")

    def _check_reach(self) -> None:
        batch = self.trainer.place(next(self._batches()))
        found = reach.arrivals(self.assembly.step, batch, reach.is_distillation)
        complaint = engine.agree(self.ranks, reach.complaint(found))
        if complaint:
            raise UserError(complaint)
        if idle := reach.idle(found):
            self.journal.say(f"note: no gradient at the start from {', '.join(idle)}: weight 0?")

    def _batches(self) -> Iterator[Batch]:
        settings = self.experiment
        return data.stream(
            self.assembly.data,
            seed=settings.seed,
            batch_size=settings.batch_size,
            steps=settings.steps,
            start=self.trainer.done,
            rank=self.ranks.process_index,
            world=self.ranks.num_processes,
            accumulate=settings.accumulate,
            flip=settings.flip,
            change=self.assembly.change,
            on_damage=self.unreadable.note,
            workers=settings.workers,
        )

    # the steps

    def _take_steps(self) -> None:
        batches = self._batches()
        while self.trainer.done < self.experiment.steps:
            learning_rate = self.trainer.learning_rate
            with self.clock.running():
                self.trainer.advance(batches)
                if self._is_due(self.experiment.log_every):
                    self._log(learning_rate)
            self._after_step()

    def _is_due(self, every: int) -> bool:
        """Whether something that is done so often is to be done after this step."""
        done = self.trainer.done
        return done % every == 0 or done == self.experiment.steps

    def _after_step(self) -> None:
        self.journal.step(self.trainer.done)
        if self.assembly.tune is not None and self._is_due(self.experiment.validate_every or 1):
            self._validate(self.assembly.tune)
        if self.experiment.keep_every and self._is_due(self.experiment.keep_every):
            self._keep()
        must_stop = self._must_stop()
        if must_stop or self._is_due(self.experiment.save_every):
            self._save()
        if must_stop:
            raise KeyboardInterrupt

    def _must_stop(self) -> bool:
        """Whether any rank was asked to; several ranks look only when they log."""
        if self.ranks.num_processes == 1:
            return self.stop.asked
        if self.trainer.done % self.experiment.log_every:
            return False
        return engine.agree(self.ranks, "stop" if self.stop.asked else None) is not None

    def _report_damage(self) -> None:
        """Says which pictures could not be read since the last time; ends a run with too many."""
        noted: list[Damage] = gather_object(self.unreadable.take_noted())
        for line in self.unreadable.enter(noted):
            self.journal.say(f"note: train data: {line}")

    def _log(self, learning_rate: float) -> None:
        self._report_damage()
        steps = len(self.trainer.window)
        losses, norm = self.trainer.read()
        task = {name.partition("/")[2]: v for name, v in losses.items() if _is_task(name)}
        self.journal.record(
            {
                "step": self.trainer.done,
                "kind": "train",
                "lr": learning_rate,
                "seconds": self.clock.seconds,
                "cpu_seconds": self.clock.cpu_seconds,
                "step_ms": self.clock.lap_ms(steps),
                "task": task,
                "distill": {name: v for name, v in losses.items() if not _is_task(name)},
                "grad_norm": norm,
            }
        )

    def _settle(self) -> None:
        """Waits for the device, whose time counts; raises if a number was not finite."""
        with self.clock.running():
            self.trainer.check()

    def _validate(self, dataset: data.Dataset) -> None:
        self._settle()
        metrics = assess(self.trainer.detector, dataset, self.experiment, self.ranks).metrics
        step = self.trainer.done
        self.journal.record({"step": step, "kind": "eval", "metrics": metrics})
        self.journal.say(f"step {step}: {accuracy(metrics, 'AP')} on the tune split")
        if metrics["AP"] > self.best:
            self.best = metrics["AP"]
            self._save_to(self.folder.best)

    def _save(self) -> None:
        self._settle()
        self._report_damage()
        self._save_to(self.folder.last)
        self.saved_at = self.trainer.done
        self._set_status("running")

    def _keep(self) -> None:
        self._settle()
        if self.ranks.is_main_process:
            file = self.folder.snapshot(self.trainer.done)
            interop.save(self.trainer.detector, file, self._card())

    def _save_to(self, folder: Path) -> None:
        if self.ranks.is_main_process:
            state = {
                "trainer": self.trainer.state(),
                "best": self.best,
                "seconds": self.clock.seconds,
                "cpu_seconds": self.clock.cpu_seconds,
                "lap": self.clock.lap,
                "teacher": self.assembly.teacher_fingerprint,
                "unreadable": self.unreadable.known,
            }
            checkpoint.save(folder, state, self.trainer.detector, self._card())
        self.ranks.wait_for_everyone()

    # the end

    def _evaluate(self) -> Summary:
        self.stop.at_once = True
        detector, test = self.trainer.detector, self.assembly.test
        if self.ranks.is_main_process:
            interop.save(detector, self.folder.student, self._card())
        self.journal.say(f"evaluating the last step on {len(test)} test images")
        assessment = assess(detector, test, self.experiment, self.ranks)
        found: list[Any] = [None]
        if self.ranks.is_main_process:
            found = [self._summary(assessment)]
            write_json(self.folder.detections, assessment.detections, compact=True)
            write_json(self.folder.evaluation, found[0])
        summary: Summary = broadcast_object_list(found)[0]
        self.journal.say(f"test: {accuracy(assessment.metrics, 'AP', 'AP50')}")
        return summary

    def _summary(self, assessment: Assessment) -> Summary:
        return {
            "metrics": assessment.metrics,
            "split": "test",
            "images": assessment.images,
            "notes": list(self.assembly.test.notes),
            "data": self.experiment.data,
            "step": self.trainer.done,
            "cost": {
                "seconds": round(self.clock.seconds, 3),
                "cpu_seconds": round(self.clock.cpu_seconds, 3),
                "step_ms": round(statistics.median(self.folder.measured("step_ms")), 3),
                "peak_memory_mb": environment.peak_memory_mb(self.ranks.device),
            },
            "facts": facts(self.trainer.detector, self.assembly.test),
        }

    def _card(self) -> dict[str, Any]:
        """What the student's card says beside its architecture."""
        return {
            "origin": self.assembly.origin,
            "teacher": self.assembly.teacher_fingerprint,
            "teacher_classes": self.assembly.classes and self.assembly.classes.names,
            "methods": experiments.to_dict(self.experiment)["methods"],
            "data": self.experiment.data,
            **experiments.sizes(self.experiment),
            "step": self.trainer.done,
        }

    def _set_status(self, state: State) -> None:
        if self.ranks.is_main_process:
            self.folder.set_status(state, step=self.trainer.done, steps=self.experiment.steps)

    def _interruption(self) -> InterruptedRun:
        return InterruptedRun(
            f"The run in {self.folder.path} is saved up to step {self.saved_at} of "
            f"{self.experiment.steps}. Run the same command again with --resume to go on."
        )


def _is_task(name: str) -> bool:
    return not reach.is_distillation(name)
