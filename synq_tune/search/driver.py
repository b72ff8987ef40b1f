"""A study from its header to its exported best student; every step can be the first after a
crash."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import fx

from synq_tune.config import StudySpec
from synq_tune.config.metrics import mode_of, objective
from synq_tune.config.overrides import overrides_line
from synq_tune.data.labelled_cache import share_halves
from synq_tune.export.best import export_student
from synq_tune.export.exportable import check_exportable
from synq_tune.inspection.table import summary_lines
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.notes import counted
from synq_tune.process.signals import Interrupts
from synq_tune.report.evidence import Evidence
from synq_tune.report.material import Material
from synq_tune.search import gpu_sharing
from synq_tune.search.calibration import calibrates_first, run_calibration
from synq_tune.search.checkpoints import load_student
from synq_tune.search.cluster import ray_cluster
from synq_tune.search.engine import Work, manifest_of, run_trials, worker_context
from synq_tune.search.filter_lines import filter_lines
from synq_tune.search.ladder import build_ladder
from synq_tune.search.logical_time import waiting_line
from synq_tune.search.own_code_copies import Sources, open_sources
from synq_tune.search.planned import planned_line
from synq_tune.search.queue import RunQueue
from synq_tune.search.reporting import LATER, material_of, without_failing, write_and_log
from synq_tune.search.resources import Machine, Plan, plan_resources
from synq_tune.search.runs_bar import RunsBar
from synq_tune.search.sampler import Sampler
from synq_tune.search.schedulers import make_scheduler
from synq_tune.search.tune_adapter import StopRequest
from synq_tune.store import sha256_file
from synq_tune.study.console import run_line
from synq_tune.study.files import leftovers, place_prefix, prune, ray_places
from synq_tune.study.ledger import Ledger
from synq_tune.study.progress import seconds_spent, target_met
from synq_tune.study.stages import Best, Dataset, Ladder, Metric, Parity, Stage, Teacher
from synq_tune.study.state import Run
from synq_tune.study.summary import best_run, damaged_export
from synq_tune.study.summary_writer import SummaryWriter
from synq_tune.synthesis.dataset import synthesize
from synq_tune.tracking.inputs import Labelled
from synq_tune.tracking.writer import TrackedStudy
from synq_tune.trial.assets import Assets, choose_device, golden_images, load_assets, parity_images
from synq_tune.trial.memory import memory_line
from synq_tune.trial.requirements import Prepared, prepare
from synq_tune.views.low_pass import low_pass

GRID_IMAGES = 32


@dataclass(frozen=True)
class Options:
    """What a driver decides anew each time; none of it changes a result."""

    folder: Path
    store: Path
    ray_address: str | None = None
    tracking_uri: str | None = None
    upload_images: bool = False
    """Also to a tracking store on another machine; a later driver of the study goes on doing so."""
    max_concurrent: int | None = None
    gpus_per_trial: float | None = None
    max_hours: float | None = None


class StudyDriver:
    """One process's work on one study; the ledger remembers what earlier ones did."""

    def __init__(self, ledger: Ledger, options: Options, interrupts: Interrupts) -> None:
        self.ledger, self.options, self.interrupts = ledger, options, interrupts
        self.folder = options.folder
        self.summary = SummaryWriter(options.folder)
        self.spec = _with_resources(ledger.state.spec, options)
        self.device = choose_device()
        self.started = time.monotonic()  # a clock may jump
        self.spent_before = seconds_spent(ledger)
        self._loaded: Assets | None = None
        self._labelled: str | None = None
        self._told_labelled: Labelled | None = None
        self._last_plan: Plan | None = None
        self.runs_bar = RunsBar()
        self.tracked: TrackedStudy | None = None
        """None until the store is open, which a signal may come before."""
        self.report: Path | None = None
        """The page that was written."""

    def run(self) -> Run | None:
        """Do what is left to do; returns the best run, None if no trial completed.

        Raises:
            InputError: the study cannot run as asked; nothing was started.
            KeyboardInterrupt: a signal arrived; everything done is in the ledger.
        """
        self._tidy()
        sources = open_sources(self.spec, self.folder)
        prepared = prepare(self.spec, self.device, self.options.store)
        check_exportable(prepared.teacher)
        with self._cluster(prepared, sources) as machines:
            dataset_path = self._search_all(prepared, sources, machines)
        best = best_run(self.ledger.state)
        if best is None:
            self._report(lambda: self._whole_material(self._assets(dataset_path), None, True))
            self._end("FAILED")
            return None
        self._finish(best, self._assets(dataset_path))
        return best

    def _cluster(
        self, prepared: Prepared, sources: Sources
    ) -> contextlib.AbstractContextManager[list[Machine]]:
        """Ray, if there is something left to search: what it lacks is said before hours of
        synthesis."""
        if self._is_searched(self._queue(prepared)):
            return contextlib.nullcontext([])
        for left in ray_places(self.ledger.state):  # by killed drivers of this study
            shutil.rmtree(left, ignore_errors=True)
        prefix = place_prefix(self.ledger.state)
        return ray_cluster(self.options.ray_address, sources.py_modules(), prefix)

    def _search_all(self, prepared: Prepared, sources: Sources, machines: list[Machine]) -> Path:
        """Everything up to the last trial; returns the dataset's folder."""
        self.interrupts.check()
        if machines:
            plan_resources(self.spec.study, machines)
        options = self.options
        self.tracked = TrackedStudy.open(
            self.ledger, options.tracking_uri, self.folder, options.upload_images
        )
        prepared = self._share_labelled(prepared)
        self._describe(prepared)
        self.tracked.describe(self.ledger.state)
        dataset_path = self._dataset(prepared.teacher)
        sources.keep(self.folder)
        self.tracked.describe(self.ledger.state, self._told_labelled)
        with self.runs_bar:
            self._calibrate(dataset_path)
            self._search(prepared, dataset_path, sources, machines)
        return dataset_path

    def _share_labelled(self, prepared: Prepared) -> Prepared:
        """Put the labelled images into the store, and out of this process's own memory.

        Only now that nothing of the user's input can be wrong any more: that leaves no files.
        """
        if prepared.halves is not None:
            self._labelled = share_halves(prepared.halves, self.options.store)
            self._told_labelled = Labelled(self._labelled, *map(len, prepared.halves))
        return replace(prepared, halves=None)

    def _tidy(self) -> None:
        """Delete what killed drivers left half done; whoever holds the lock is alone here."""
        for path in leftovers(self.folder):
            path.unlink(missing_ok=True)
        prune(self.folder, self.ledger.state)

    def _assets(self, dataset_path: Path) -> Assets:
        """What calibration, ladder and export need, loaded once."""
        if self._loaded is None:
            paths = (dataset_path, self.options.store)
            self._loaded = load_assets(self.spec, *paths, self.device, self._labelled)
        return self._loaded

    # ---------------------------------------------------------------- stages

    def stage(self, stage: Stage) -> None:
        """Record a stage, unless the ledger already says the same."""
        self.interrupts.check()  # a library may have swallowed what a signal raised
        if not self.ledger.state.stages.says(stage):
            self.ledger.record(stage)
        self.summary.write(self.ledger.state)

    def _describe(self, prepared: Prepared) -> None:
        teacher = prepared.teacher
        about = self.spec.teacher.model, teacher.fingerprint
        self.stage(Teacher(*about, prepared.top1, prepared.reference))
        self.stage(Metric(prepared.metric, mode_of(prepared.metric)))
        accuracy = "" if prepared.top1 is None else f", top1 {prepared.top1:.2f} %"
        print(f"study     {self.folder}")
        print(f"search    {planned_line(self.ledger.state)}")
        print(f"teacher   {self.spec.teacher.model}{accuracy}, choosing by {prepared.metric}")
        print(*teacher.note_lines, sep="\n", end="\n" if teacher.notes else "")
        print(overrides_line(self.spec))
        print("\n".join(summary_lines(prepared.inspection, self.spec.bits)))
        print(memory_line(self.spec, teacher), flush=True)

    def _dataset(self, teacher: LoadedTeacher) -> Path:
        dataset, is_reused = synthesize(teacher, self.spec, self.options.store)
        self.stage(
            Dataset(
                path=str(dataset.path),
                sha256=dataset.sha256,
                num_images=len(dataset.train_images),
                num_holdout=dataset.num_holdout,
                method=dataset.method,
            )
        )
        images = f"{len(dataset.train_images)} + {dataset.num_holdout} images"
        print(f"dataset   {'reused' if is_reused else 'made'}: {images}, {dataset.path}")
        d0 = self.spec.search.get("d0")
        d0s = d0.values if d0 else (self.spec.finetune.d0,)
        print("\n".join(filter_lines(dataset.train_images[:256], d0s)), flush=True)
        self._draw(teacher, dataset.train_images[:GRID_IMAGES])
        return dataset.path

    def _draw(self, teacher: LoadedTeacher, images: torch.Tensor) -> None:
        path = self.folder / "synthetic_images.png"
        if not path.exists():
            # Here, since Matplotlib takes a second that a resumed study need not wait.
            from synq_tune.report.image_grid import save_image_grid

            d0 = self.spec.finetune.d0
            input_ = teacher.preprocessing
            save_image_grid(
                images.float(), low_pass(images, d0), input_.mean, input_.std, path, d0=d0
            )
        self.tracked.log_image_grid(path)

    def _calibrate(self, dataset_path: Path) -> None:
        if not calibrates_first(self.spec):
            return
        if not self.spec.is_varied:
            print(
                "search    nothing is trained at 0 epochs: one trial, calibration only", flush=True
            )
        with self.interrupts.deferred():
            assets = partial(self._assets, dataset_path)
            run_calibration(self.ledger, assets, self.folder, self._on_transition)

    def _search(
        self, prepared: Prepared, dataset_path: Path, sources: Sources, machines: list[Machine]
    ) -> None:
        metric, queue = prepared.metric, self._queue(prepared)
        if self._is_searched(queue):
            return
        store = self.options.store
        manifest = None  # on this machine alone every worker reads the driver's files
        if self.options.ray_address:
            manifest = manifest_of(prepared.teacher, dataset_path, store, self._labelled)
        context = worker_context(
            self.spec, dataset_path, store, self.folder, metric, sources, self._labelled, manifest
        )
        stop = StopRequest(self.interrupts.requested, self._is_enough)
        plan = partial(self._plan, machines)
        work = Work(self.ledger, queue, stop, context, plan, self._on_transition)
        with self.interrupts.deferred():
            run_trials(work, lambda: make_scheduler(self.spec, self.ledger.state, metric))
        width = self.spec.study.deterministic
        if width is not None and (line := waiting_line(self.ledger.state, width)):
            print(line, flush=True)

    def _queue(self, prepared: Prepared) -> RunQueue:
        def score(run: Run) -> float | None:
            return objective(run.metrics, prepared.metric)

        others = self.spec.study.objectives[1:]
        return RunQueue(self.spec, Sampler(self.spec, score, others))

    def _is_searched(self, queue: RunQueue) -> bool:
        return self._is_enough() or queue.is_done(self.ledger.state)

    def _plan(self, machines: list[Machine]) -> Plan:
        """How the cluster is divided now; printed when it changes."""
        state = self.ledger.state
        room = gpu_sharing.fitting(state), gpu_sharing.most(state)
        plan = plan_resources(self.spec.study, machines, *room)
        if plan != self._last_plan:
            self._last_plan = plan
            self._show_runs()
            share = f"{plan.cpus_per_trial:g} CPU and {plan.gpus_per_trial:g} GPU each"
            number = counted(self.spec.study.num_trials, "trial")
            trials = f"{number}, {plan.max_concurrent} at a time"
            print(f"search    {trials}, {share}", flush=True)
            if plan.gpus_per_trial and room[0] is not None:
                print(f"          {gpu_sharing.memory_line(state.stages.gpu)}")
        return plan

    def _finish(self, best: Run, assets: Assets) -> None:
        student = load_student(assets, best, self.folder)
        self.stage(Ladder(tuple(build_ladder(assets, self.ledger.state, student))))
        target = self.folder / "best"
        if self._is_exported(best):
            self.stage(replace(self.ledger.state.stages.best, export_dir=str(target)))
            print(f"export    {target} is there already")
        else:
            self._export(best, student, assets, target)
        example = assets.teacher.preprocessing.denormalize(assets.probes.images[:1].float())
        self.stage(self.tracked.log_best(target, self.ledger.state, example.numpy()))
        is_ending = not self.tracked.missing
        self._report(partial(self._whole_material, assets, student, is_ending))
        if self.tracked.missing:
            # Not finished: the next driver has nothing left to do but this.
            self.ledger.append("session", action="interrupted")
            self._sync()
            self.tracked.finish("KILLED")
        else:
            self._end("FINISHED")

    def _is_exported(self, best: Run) -> bool:
        """Whether the folder holds this run's files, whole."""
        exported = self.ledger.state.stages.best
        is_its = exported is not None and exported.key == best.key
        return is_its and not damaged_export(self.ledger.state, self.folder)

    def _export(self, best: Run, student: Any, assets: Assets, target: Path) -> None:
        spec = assets.spec.of_trial(best.params)
        parity = export_student(
            student,
            assets.teacher,
            spec,
            target,
            golden_images=golden_images(assets),
            parity_images=parity_images(assets),
        )
        files = {p.name: sha256_file(p) for p in sorted(target.iterdir()) if p.is_file()}
        self.stage(Parity(parity))
        self.stage(Best(best.key, best.number, best.params, best.metrics, str(target), files))

    def _end(self, status: str) -> None:
        self.ledger.append("session", action="finished")
        self._sync()
        self.tracked.finish(status)

    def show_interrupted(self) -> None:
        """Let report and MLflow show unfinished runs and the study as killed; the ledger says so
        already."""
        if self.tracked is not None:
            self._sync()
            self._report(self._quick_material)
            self.tracked.finish("KILLED")

    def _report(self, make: Callable[[], Material]) -> None:
        """Write the study's page; nothing that goes wrong with it stops the study."""
        self.report = without_failing(lambda: write_and_log(make(), self.tracked), self.folder)

    def _quick_material(self) -> Material:
        """What a page can be written from at once: who pressed Ctrl+C does not wait for more."""
        return Material(self.ledger.state, self.folder, evidence=Evidence.absent(LATER))

    def _whole_material(
        self, assets: Assets, student: fx.GraphModule | None, is_ending: bool
    ) -> Material:
        print("report    measuring layers and images", flush=True)
        return material_of(self.ledger.state, self.folder, assets, student, is_ending)

    # ---------------------------------------------------------------- transitions

    def _on_transition(self, key: str) -> None:
        line = run_line(self.ledger.state, key)
        if line:
            print(line, flush=True)
        if self.ledger.state.runs[key].is_final:
            prune(self.folder, self.ledger.state)
        self._show_runs()
        self.summary.transition(self.ledger.state)
        self.tracked.sync(self.ledger.state, key)

    def _show_runs(self) -> None:
        concurrent = 1 if self._last_plan is None else self._last_plan.max_concurrent
        self.runs_bar.show(self.ledger.state, concurrent)

    def _sync(self) -> None:
        """Bring summary and MLflow up to the ledger."""
        self.summary.write(self.ledger.state)
        self.tracked.sync(self.ledger.state)

    def _is_enough(self) -> bool:
        """Whether the target is met or the time is over."""
        return target_met(self.ledger.state) is not None or self._deadline_passed()

    def _deadline_passed(self) -> bool:
        hours = self.spec.study.max_hours
        spent = self.spent_before + time.monotonic() - self.started
        return hours is not None and spent > 3600 * hours


def _with_resources(spec: StudySpec, options: Options) -> StudySpec:
    """The header's study with this driver's own resources on top."""
    own = ("max_concurrent", "gpus_per_trial", "max_hours")
    given = {key: getattr(options, key) for key in own if getattr(options, key) is not None}
    return spec.model_copy(update={"study": spec.study.model_copy(update=given)})
