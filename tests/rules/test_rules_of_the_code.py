"""The architecture, checked: layers, one method per file, nothing distributed outside training."""

import ast
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import detdistill
from detdistill import methods, recipes
from detdistill.cli import hyperparameters, listings

SOURCE = Path(detdistill.__file__).parent
ROOT = SOURCE.parents[1]


def test_layers_import_downwards_only() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_only_training_knows_of_several_processes() -> None:
    knowing = [
        str(file.relative_to(SOURCE))
        for file in SOURCE.rglob("*.py")
        if file.relative_to(SOURCE).parts[0] != "train"
        and any(name.startswith(("torch.distributed", "accelerate")) for name in _imported(file))
    ]
    assert not knowing


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)


@pytest.mark.parametrize("name", methods.names())
def test_a_file_holds_one_method_that_says_where_it_comes_from(name: str) -> None:
    card = listings.method_card(name)  # fails unless there is exactly one
    assert card.idea
    assert card.paper
    assert card.reads
    assert card.differs
    assert card.idea.count(". ") <= 2, "the idea in two lines"


@pytest.mark.parametrize("name", methods.names())
def test_every_hyper_parameter_of_a_method_has_a_type_a_default_and_a_meaning(name: str) -> None:
    method = methods.find(name)
    for setting in hyperparameters.of(method):
        assert setting.meaning, f"{name}.{setting.name} has no sentence below it"
    missing = dataclasses.MISSING
    for field in dataclasses.fields(method):
        assert (field.default, field.default_factory) != (missing, missing), field.name


OF_A_STEP = (
    *("methods/**/*.py", "masks/*.py", "losses.py", "focal.py", "similarity.py"),
    *("instances.py", "boxes.py", "levels.py"),
)


@pytest.mark.parametrize("pattern", OF_A_STEP)
def test_what_runs_in_a_step_knows_no_devices_and_does_not_wait_for_them(pattern: str) -> None:
    files = list(SOURCE.glob(pattern))
    assert files
    for file in files:
        source = file.read_text(encoding="utf-8")
        for word in (".item()", ".cuda(", ".cpu(", "synchronize"):
            assert word not in source, file


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_says_what_it_is(name: str) -> None:
    file = SOURCE / "recipes" / f"{name}.yaml"
    assert file.read_text(encoding="utf-8").startswith("# ")
