"""The commands as functions, beside folders of code with the same names."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from tests.cli.terminal import SOURCE
from tests.cli.terminal import detdistill as detdistill_in_words

import detdistill
from detdistill.cli import COMMANDS
from detdistill.errors import UserError


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


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: detdistill.export("run", out="m.onnx", precision="fp8"), "precision is 'fp8'"),
        (lambda: detdistill.predict("run", ["a"], out="o", formats="pictures"), "formats is"),
        (lambda: detdistill.predict("run", ["a"], out="o", formats=["picture"]), "formats is"),
        (lambda: detdistill.import_checkpoint("mmdetection", "f", out="o"), "source is"),
    ],
)
def test_what_there_is_to_choose_from_is_said(call: Callable[[], object], said: str) -> None:
    with pytest.raises(UserError, match=f"{said}.*but must be.*one of"):
        call()


def test_a_detector_is_replaced_only_if_that_is_wanted(teacher: Path, tmp_path: Path) -> None:
    out, card = (tmp_path / f"student.{ending}" for ending in ("safetensors", "json"))
    card.write_text("{}")
    with pytest.raises(UserError, match=r"student\.json already: --overwrite replaces it"):
        detdistill.export(str(teacher), out=str(out))
    assert not out.exists()
    detdistill.export(str(teacher), out=str(out), overwrite=True)
    assert out.exists()
    assert card.read_text() != "{}"


def test_a_detector_whose_classes_have_other_names_can_be_evaluated(
    teacher: Path, tmp_path: Path
) -> None:
    file = tmp_path / "foreign.safetensors"
    detdistill.export(str(teacher), out=str(file))
    card = json.loads(file.with_suffix(".json").read_text())
    names = card["architecture"]["classes"]
    ours, names[0] = names[0], "foreigner"
    file.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=f"does not know .*{ours}"):
        detdistill.evaluate(str(file), data="shapes:tiny")
    found = detdistill.evaluate(str(file), data="shapes:tiny", class_map={"foreigner": ours})
    assert found["metrics"] == detdistill.evaluate(str(teacher), data="shapes:tiny")["metrics"]
    words = ["evaluate", file, "--data", "shapes:tiny", "--class_map", f'{{"foreigner": "{ours}"}}']
    assert detdistill_in_words(*words).code == 0


def test_a_detector_is_measured_on_the_data_that_it_learned_from(teacher: Path) -> None:
    own = detdistill.evaluate(teacher)
    assert own["data"] == "shapes:tiny"
    assert own["metrics"] == detdistill.evaluate(str(teacher), data="shapes:tiny")["metrics"]


def test_one_text_is_not_taken_for_its_letters(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Unknown figure 'mops'"):
        detdistill.explain(str(tmp_path), only="mops")
    with pytest.raises(UserError, match=f"{tmp_path}/none"):
        detdistill.report(f"{tmp_path}/none", out=tmp_path / "page.html")


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
