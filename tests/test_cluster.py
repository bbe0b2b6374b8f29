"""Trainings as tasks of a Ray cluster of this machine."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

import detdistill
from detdistill import cluster, grid, progress
from detdistill.cluster import Cluster
from detdistill.errors import UserError
from detdistill.train.experiment import Experiment, Optimizer

SOURCE = Path(detdistill.__file__).resolve().parents[1]


def test_without_ray_the_answer_is_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"\.\[ray\]"), cluster.connected("local"):
        pass


def test_what_an_earlier_call_said_is_gone_before_a_worker_says_a_word(tmp_path: Path) -> None:
    submitted: list[bytes] = []
    remote = SimpleNamespace(remote=lambda _, log, __: submitted.append(Path(log).read_bytes()))
    ray = SimpleNamespace(remote=lambda **_: lambda _: remote)
    log = tmp_path / "run.log"
    log.write_text("an earlier call's last word")
    Cluster(ray=ray, cpus=1, gpus=0).launch(["train"], log)
    assert submitted == [b""]


@pytest.fixture(scope="module")
def machines() -> Iterator[Cluster]:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SOURCE))
        patch.setenv("RAY_worker_niceness", "0")  # else other tests starve them
        with cluster.connected("local") as found:
            yield found


def job(folder: Path, steps: int) -> grid.Job:
    training = Experiment(
        data="shapes:tiny", images=16, steps=steps, batch_size=4, save_every=5, log_every=1,
        optimizer=Optimizer(warmup_steps=1),
    )  # fmt: skip
    return grid.Job(name=folder.name, experiment=training, folder=folder)


def wait_for(came: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not came():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def worker_of(log: Path) -> int:
    """The process that talks to the file."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == log:
                return int(link.parts[2])
        except OSError:
            continue  # it has ended, or it is somebody else's
    raise AssertionError(f"nobody talks to {log}")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds the worker by /proc")
def test_a_training_survives_an_interruption_and_the_loss_of_its_worker(
    machines: Cluster, tmp_path: Path
) -> None:
    training = job(tmp_path / "run", steps=250)
    log = tmp_path / "jobs" / "run.log"

    words = grid._command_line(training, grid._write_config(training), overwrite=False)
    task = machines.launch(words, log)
    wait_for(lambda: progress.read(training.folder).loss is not None)
    task.send_signal(signal.SIGINT)
    task.wait(60)
    assert progress.read(training.folder).state == "interrupted"
    before = progress.read(training.folder).step

    with ThreadPoolExecutor() as pool:
        trained = pool.submit(grid.run, [training], launch=machines.launch)
        wait_for(lambda: progress.read(training.folder).step > before + 5)
        os.kill(worker_of(log), signal.SIGKILL)
        assert trained.result(timeout=180) == ["run"]
    found = progress.read(training.folder)
    assert (found.state, found.step) == ("finished", 250)
    resumed = json.loads((training.folder / "environment.json").read_text())["resumed"]
    assert len(resumed) == 2


def test_a_mistake_is_told_as_on_one_machine(machines: Cluster, tmp_path: Path) -> None:
    wrong = grid.Job(name="bad", experiment=Experiment(data="shapess"), folder=tmp_path / "bad")
    with pytest.raises(UserError, match=r"'bad' failed .* Did you mean 'shapes'"):
        grid.run([wrong], launch=machines.launch)


def test_an_address_without_a_cluster_is_the_users_mistake() -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with pytest.raises(UserError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        cluster.connected("127.0.0.1:1").__enter__()
