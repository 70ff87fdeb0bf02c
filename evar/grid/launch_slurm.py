"""Cells as jobs of Slurm (``--launcher=slurm``), through submitit: a job array, one job per batch.

What became of a cell is told by the journal in the results folder, not by the job. So a job that is preempted or meets
its time limit is queued again and goes on with what is missing; and the command that submitted it may be interrupted:
the next one finds the jobs that are still queued or running, and the results of those that are not.
"""

from __future__ import annotations

import getpass
import json
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evar.errors import UserError
from evar.grid import journal
from evar.grid.cell import Outcome, RunSettings
from evar.grid.plan import Batch, Cell
from evar.grid.remote import Launch, environment, given_up, launch_of, news, run_there, still_to_do
from evar.grid.slurm_options import SlurmOptions, read_options
from evar.progress import say
from evar.store import write_atomically

FOLDER = "slurm"
"""In the journal's folder: logs and submitit's files, by job, and which job has which cells."""
LONGEST_ARRAY = 1000
"""Jobs in an array; Slurm's usual ``MaxArraySize`` is 1001."""
MISSED = 3
"""A job that is missing from so many looks at the queue in a row is over."""


def run_on_slurm(batches: Sequence[Batch], settings: RunSettings) -> Iterator[Outcome]:
    """Submit batches and yield outcomes as the journal has them; jobs of an earlier call are waited for, not repeated.

    When the caller stops (Ctrl-C), the jobs stay in the queue.
    """
    options = read_options(settings.extra, settings)
    settings = replace(settings, cpus_per_cell=options.cpus, gpus_per_cell=float(options.gpus))
    launch = launch_of((cell for batch in batches for cell in batch), settings)
    folder = journal.journal_folder(launch.settings.results) / FOLDER
    queue = _Queue(options)
    done, wanted = still_to_do(batches, launch)
    yield from done
    jobs = _found_again(folder, queue, {cell.key: cell for batch in wanted for cell in batch}, launch)
    covered = {cell.key for job in jobs for cell in job.cells}
    rest = [left for batch in wanted if (left := tuple(cell for cell in batch if cell.key not in covered))]
    for start in range(0, len(rest), LONGEST_ARRAY):
        jobs += _submit(rest[start : start + LONGEST_ARRAY], launch, options, folder, queue)
    try:
        yield from _watch(jobs, launch, queue, options)
    except (KeyboardInterrupt, GeneratorExit):
        numbers = " ".join(sorted({job.number.partition("_")[0] for job in jobs}))
        say(f"the jobs go on; the same command collects their results, and `scancel {numbers}` ends them")
        raise
    launch.sign.unlink(missing_ok=True)


@dataclass
class _Job:
    """A job in the queue, and those of its cells that are still waited for."""

    number: str
    cells: list[Cell]
    folder: Path
    missed: int = 0


class BatchJob:
    """What a job does; submitit keeps it in the job's folder and calls it, once more when the job is queued again."""

    def __init__(self, batch: Batch, launch: Launch) -> None:
        self.batch, self.launch = batch, launch

    def __call__(self) -> int:
        """Run the batch and return how many of its cells are done.

        SIGTERM is what comes first when a job is preempted or cancelled. Nothing new is begun then, and the job waits
        for its end: had it ended by itself, Slurm would take it for complete and not queue it again.
        """
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        done = sum(outcome.state == "done" for outcome in run_there(self.batch, self.launch, stop))
        while stop.is_set() and "SLURM_JOB_ID" in os.environ:
            time.sleep(1)
        return done

    def checkpoint(self) -> Any:
        """Return what goes on after the signal that precedes the time limit: the same batch (submitit's protocol)."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def executor_of(folder: Path, options: SlurmOptions) -> Any:
    """Return submitit's executor with all parameters set; :class:`UserError` where there is no Slurm."""
    import submitit

    try:
        executor = submitit.AutoExecutor(folder / "%j", cluster=options.cluster, slurm_max_num_timeout=options.requeues)
    except RuntimeError:
        raise UserError(
            "there is no Slurm here (no srun on the PATH): start the grid on a host of the cluster, or use another "
            "--launcher"
        ) from None
    setup = [f"export {name}={shlex.quote(text)}" for name, text in environment().items()]
    executor.update_parameters(**options.parameters(), slurm_setup=setup)
    return executor


def _submit(batches: Sequence[Batch], launch: Launch, options: SlurmOptions, folder: Path, queue: _Queue) -> list[_Job]:
    """Submit batches as one array, and write down which job has which cells."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = executor_of(folder, options)
    try:
        with executor.batch():
            submitted = [executor.submit(BatchJob(batch, launch)) for batch in batches]
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        lines = [line for line in str(error).splitlines() if "error" in line.lower()] or str(error).splitlines()
        raise UserError(f"sbatch did not take the job: {lines[-1].strip() if lines else error}") from None
    queue.own += submitted
    jobs = [_Job(job.job_id, list(batch), job.paths.folder) for job, batch in zip(submitted, batches, strict=True)]
    number = jobs[0].number.partition("_")[0]
    say(f"Slurm: {len(jobs)} job{'s' if len(jobs) > 1 else ''} submitted ({number}), logs in {folder}")
    entries = {job.number: {cell.key: launch.before[cell.key] for cell in job.cells} for job in jobs}
    about = {job: {key: e.created if e else "" for key, e in of.items()} for job, of in entries.items()}
    write_atomically(folder / f"jobs-{number}.json", json.dumps({"sign": launch.sign.name, "jobs": about}, indent=1))
    return jobs


def _found_again(folder: Path, queue: _Queue, cells: Mapping[str, Cell], launch: Launch) -> list[_Job]:
    """Return the jobs of earlier calls that still are in the queue and have cells before them that are wanted now."""
    jobs = []
    alive = queue.alive()
    for path in sorted(folder.glob("jobs-*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            about = {str(number): dict(created) for number, created in record["jobs"].items()}
            sign = folder.parent / Path(record["sign"]).name
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        living = [number for number in about if alive is None or number in alive]
        if not living:
            path.unlink(missing_ok=True)
            sign.unlink(missing_ok=True)
        for number in living:
            wanted = [cells[key] for key in about[number] if key in cells]
            ahead = [cell for cell in wanted if not _had(launch.before[cell.key], about[number][cell.key])]
            if ahead:
                jobs.append(_Job(number, ahead, folder / number))
    if jobs:
        say(f"Slurm: {len(jobs)} job{'s' if len(jobs) > 1 else ''} of an earlier call still in the queue")
    return jobs


def _had(entry: journal.Entry | None, before: str) -> bool:
    """Say whether the job has had this cell already: its entry is final and not the one from before the job."""
    return entry is not None and entry.state != "running" and entry.created != before


def _watch(jobs: list[_Job], launch: Launch, queue: _Queue, options: SlurmOptions) -> Iterator[Outcome]:
    """Yield outcomes until every job is over."""
    while jobs:
        alive = queue.alive()
        for job in list(jobs):
            over = alive is not None and job.number not in alive
            job.missed = job.missed + 1 if over else 0
            for outcome in news(job.cells, launch):
                job.cells.remove(outcome.cell)
                yield outcome
            if job.missed >= MISSED:
                reason = _end_of(job)
                while job.cells:
                    yield given_up(job.cells.pop(0), launch, reason)
            if not job.cells:
                jobs.remove(job)
        if jobs:
            time.sleep(options.poll)


def _end_of(job: _Job) -> str:
    """Return why a job ended without having done its cells, as far as its log tells."""
    log = job.folder / f"{job.number}_0_log.err"
    with suppress(OSError):
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        if lines:
            return f"Slurm job {job.number} ended early: {lines[-1][:300]}"
    return f"Slurm job {job.number} ended early and left no log (cancelled, or its node died)"


@dataclass
class _Queue:
    """What is queued or running."""

    options: SlurmOptions
    own: list[Any] = field(default_factory=list)
    """The jobs that this process has submitted (submitit's)."""

    def alive(self) -> set[str] | None:
        """Return the numbers of the jobs that are not over; None if the queue does not answer."""
        if self.options.cluster != "slurm":
            return {job.job_id for job in self.own if not job.done()}
        words = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%F %K %A"]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        except (OSError, subprocess.SubprocessError):
            return None
        return jobs_in(done.stdout) if done.returncode == 0 else None


def jobs_in(listing: str) -> set[str]:
    """Return job numbers (``12_3``; ``12`` for a job that is no array) of lines ``array-job index job``."""
    rows = (line.split() for line in listing.splitlines())
    return {
        array if index == "N/A" else f"{array}_{index}" for array, index, *_ in (row for row in rows if len(row) > 1)
    }
