"""The commands as functions, beside folders of code with the same names."""

import subprocess
import sys
from types import ModuleType

import pytest
from tests.cli.terminal import SOURCE

import detdistill
from detdistill.cli import COMMANDS


def test_every_command_is_a_function() -> None:
    assert set(detdistill.VERBS) == set(COMMANDS) - {"import", "data"} | {"import_checkpoint"}
    assert all(callable(getattr(detdistill, verb)) for verb in detdistill.VERBS)


def test_a_folder_that_shares_a_verbs_name_is_both() -> None:
    from detdistill import methods
    from detdistill.methods import pkd

    assert isinstance(methods, ModuleType)
    assert methods.pkd is pkd
    assert {card["name"] for card in methods()} == set(methods.names())  # type: ignore[operator]


def test_an_unknown_verb_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        detdistill.distil  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, detdistill, detdistill.cli; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(SOURCE)},
    )
    assert done.stdout.strip() == "False"
