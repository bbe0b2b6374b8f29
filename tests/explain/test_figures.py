"""Every figure that is found, on made-up runs: drawn, in numbers, and in words."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from PIL import Image
from tests.explain.conftest import Runs

from detdistill import explain
from detdistill.explain.make import Made, make

NOT_THERE = {"decoupled", "maps"}
"""Figures that the methods of these runs have nothing for."""


@pytest.fixture(scope="module", params=explain.names())
def made(
    request: pytest.FixtureRequest, runs: Runs, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    return make([runs.distilled, runs.alone], only=[request.param], images=2, out=folder)


def test_a_figure_is_there_or_says_why_not(made: Made) -> None:
    assert made.figures or made.missing
    assert set(made.missing) <= NOT_THERE
    assert all(reason.endswith(".") for reason in made.missing.values())


def test_a_figure_is_drawn_for_the_screen_and_for_print(made: Made) -> None:
    for entry in made.figures:
        with Image.open(made.folder / entry["png"]) as picture:
            assert min(picture.size) > 100
            assert len(picture.convert("L").resize((64, 64)).getcolors() or []) > 1
        root = ET.parse(made.folder / entry["svg"]).getroot()  # noqa: S314 - our own
        assert root.tag.endswith("svg")


def test_a_figures_numbers_are_the_same_in_both_formats(made: Made) -> None:
    for entry in made.figures:
        rows = json.loads((made.folder / entry["json"]).read_text(encoding="utf-8"))
        with (made.folder / entry["csv"]).open(encoding="utf-8", newline="") as file:
            written = list(csv.DictReader(file))
        assert rows
        assert [list(row) for row in rows] == [list(row) for row in written]
        assert [[_text(v) for v in row.values()] for row in rows] == [
            list(row.values()) for row in written
        ]


def test_a_figure_says_what_it_shows(made: Made) -> None:
    for entry in made.figures:
        assert len(entry["title"]) > len("A figure")
        assert not entry["title"].endswith(".")
        assert entry["caption"].endswith(".")
        assert entry["source"]
        assert entry["alt"]
        assert entry["alt"] != entry["title"]
        assert bool(entry["group"]) == bool(entry["tab"])


def test_figures_of_a_group_have_tabs_of_their_own(made: Made) -> None:
    tabs = [(entry["group"], entry["tab"]) for entry in made.figures if entry["group"]]
    assert len(set(tabs)) == len(tabs)
    names = [entry["name"] for entry in made.figures]
    assert len(set(names)) == len(names)


def test_the_index_lists_what_was_made_and_nothing_else_is_there(made: Made) -> None:
    index = json.loads((made.folder / "index.json").read_text(encoding="utf-8"))
    assert index == made.figures
    files = {Path(entry[form]).name for entry in index for form in ("png", "svg", "json", "csv")}
    assert {file.name for file in made.folder.iterdir()} == files | {"index.json"}


@pytest.mark.parametrize("name", explain.names())
def test_a_figures_module_says_what_it_shows_and_after_whom(name: str) -> None:
    shows, source = explain.about(name)
    assert shows.endswith(".")
    assert source


def _text(value: object) -> str:
    return "" if value is None else str(value)
