from __future__ import annotations

import os
import signal

import pytest

from detdistill.train import stop
from detdistill.train.stop import Stop


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(stop.LAUNCHER, raising=False)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_signal_is_a_wish_and_the_second_an_end() -> None:
    with Stop() as listening:
        interrupt()
        assert listening.asked
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_what_a_launcher_passes_on_is_no_second_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stop.LAUNCHER, "some run")
    with Stop() as listening:
        interrupt()
        interrupt()
        assert listening.asked
        monkeypatch.setattr(stop, "ECHO", 0.0)
        with pytest.raises(KeyboardInterrupt):
            interrupt()
