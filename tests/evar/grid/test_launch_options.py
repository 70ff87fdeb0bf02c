"""What --launcher, --ray_address and --slurm say, and the job script that comes of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from evar.errors import UserError
from evar.grid import launchers
from evar.grid.cell import RunSettings
from evar.grid.launch_slurm import BatchJob, jobs_in
from evar.grid.launchers import launcher_extra, launcher_of
from evar.grid.remote import environment
from evar.grid.slurm_options import minutes_of, read_options

PLAIN = RunSettings(Path("results"), cpus_per_cell=3)


def test_a_launcher_that_is_not_there_or_lacks_its_package_is_named_in_one_line(monkeypatch):
    assert launcher_of("local").__module__ == "evar.grid.local"
    with pytest.raises(UserError, match=r"no launcher 'slurmm'\. Did you mean 'slurm'"):
        launcher_of("slurmm")
    monkeypatch.setattr(launchers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--launcher=ray needs ray: pip install 'evar-harness\[grid\]'"):
        launcher_of("ray")
    assert launcher_of("local") is not None


def test_asking_for_a_launcher_loads_no_other():
    code = "import sys, evar.grid.launchers as l; l.launcher_of('local'); print({'ray', 'submitit'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_options_reach_the_launcher_that_they_belong_to():
    assert launcher_extra("ray", ray_address="head:6379") == {"address": "head:6379"}
    assert launcher_extra("slurm", slurm="partition=gpu, time=1:30:00,") == {"partition": "gpu", "time": "1:30:00"}
    assert launcher_extra("local") == {}
    for wrong in ({"ray_address": "x"}, {"slurm": "partition=gpu"}):
        with pytest.raises(UserError, match="belongs to --launcher"):
            launcher_extra("local", **wrong)
    for text, message in (("gpu", "is not name=value"), ("time=", "is not name=value"), ("time=1,time=2", "twice")):
        with pytest.raises(UserError, match=message):
            launcher_extra("slurm", slurm=text)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("120", 120),
        ("90:30", 91),
        ("2:00:00", 120),
        ("0:00:01", 1),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("2-0:0:30", 2881),
    ],
)
def test_time_limits_are_read_as_slurm_writes_them(text, minutes):
    assert minutes_of(text) == minutes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"partitoin": "gpu"}, "Did you mean 'partition'"),
        ({"time": "soon"}, "time=soon"),
        ({"time": "0"}, "above 0"),
        ({"cpus": "0"}, "at least 1"),
        ({"gpus": "half"}, "whole number"),
        ({"memory": "much"}, "16G"),
        ({"cluster": "moon"}, "slurm or local"),
    ],
)
def test_a_wrong_slurm_option_is_named(given, message):
    with pytest.raises(UserError, match=message):
        read_options(given, PLAIN)


def test_slurm_gives_whole_gpus_only():
    with pytest.raises(UserError, match=r"not 0\.5"):
        read_options({}, RunSettings(Path("results"), gpus_per_cell=0.5))
    assert read_options({}, RunSettings(Path("results"), gpus_per_cell=2.0)).gpus == 2


def script(given, tmp_path, batches=5):
    """Return the lines of the sbatch file that submitit writes with our parameters for so many batches."""
    slurm = pytest.importorskip("submitit.slurm.slurm")
    from evar.grid import launch_slurm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slurm.SlurmExecutor, "affinity", classmethod(lambda cls: 2))  # as if srun were there
        executor = launch_slurm.executor_of(tmp_path, read_options(given, PLAIN))
    parameters = {**executor._executor.parameters, "map_count": batches}
    return slurm._make_sbatch_string("python job", tmp_path / "%j", **parameters).splitlines()


def test_the_batch_script_asks_for_what_was_said(tmp_path):
    given = {
        "partition": "gpu",
        "time": "1-0",
        "gpus": "2",
        "cpus": "8",
        "memory": "32GB",
        "parallel": "4",
        "account": "a1",
    }
    lines = script({**given, "signal": "120"}, tmp_path)
    for line in ("array=0-4%4", "partition=gpu", "time=1440", "gpus-per-node=2", "cpus-per-task=8", "mem=32G",
                 "account=a1", "requeue", "signal=USR2@120", "open-mode=append", "ntasks-per-node=1"):  # fmt: skip
        assert f"#SBATCH --{line}" in lines, line
    (srun,) = [line for line in lines if line.startswith("srun ")]
    assert "--cpus-per-task=8" in srun
    assert any(line.startswith("export PYTHONPATH=") for line in lines)


def test_without_options_the_script_leaves_to_the_cluster_what_is_the_clusters(tmp_path):
    text = "\n".join(script({}, tmp_path))
    assert "--cpus-per-task=3" in text and "--time=240" in text
    assert not any(word in text for word in ("--partition", "--gpus", "--mem", "--account"))


def test_without_slurm_there_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    from evar.grid import launch_slurm

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no Slurm here"):
        launch_slurm.executor_of(tmp_path, read_options({}, PLAIN))


def test_workers_get_the_code_and_the_stores_but_no_secrets(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVAR_CACHE", "cache")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("PYTHONPATH", "lib")
    found = environment()
    assert found["EVAR_CACHE"] == str(tmp_path / "cache") and found["HF_HUB_OFFLINE"] == "1"
    assert "hf_secret" not in found.values()
    import evar

    assert found["PYTHONPATH"].split(":") == [str(Path(evar.__file__).parents[1]), str(tmp_path / "lib")]


def test_the_queue_is_read_with_arrays_and_single_jobs():
    assert jobs_in("5 0 6\n5 11 5\n17 N/A 17\n\n") == {"5_0", "5_11", "17"}


def test_a_job_survives_submitits_pickling():
    submitit = pytest.importorskip("submitit")
    import pickle

    job = pickle.loads(pickle.dumps(BatchJob((), None)))  # type: ignore[arg-type]
    assert isinstance(job.checkpoint(), submitit.helpers.DelayedSubmission)
