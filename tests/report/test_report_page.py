import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import made_up
import pytest
from PIL import Image

from detdistill.errors import UserError
from detdistill.report.build import build

NASTY = "<script>alert('&')</script>"


class Elements(HTMLParser):
    """All start tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def named(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag in tags]


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up.demo(tmp_path_factory.mktemp("page") / "demo")


@pytest.fixture(scope="module")
def demo_page(demo_folder: Path) -> str:
    return build([demo_folder], demo_folder / "report.html").read_text(encoding="utf-8")


def page_of(*folders: Path) -> str:
    out = folders[0].parent / "page.html"
    return build(folders, out).read_text(encoding="utf-8")


def test_the_page_asks_for_nothing_outside_itself(demo_page: str) -> None:
    elements = Elements(demo_page)
    sources = [
        a.get("src") for a in elements.named("img", "script", "iframe", "source") if "src" in a
    ]
    links = [a["href"] for a in elements.named("link", "a", "use", "image") if "href" in a]
    styles = re.findall(r"@import|url\((?!#|['\"]?data:)", demo_page)

    assert sources
    assert all(str(source).startswith("data:") for source in sources)
    assert all(str(link).startswith(("#", "data:")) for link in links)
    assert not styles


def test_every_picture_says_what_it_shows(demo_page: str) -> None:
    pictures = Elements(demo_page).named("img")

    assert len(pictures) == 8 * 4
    assert all(
        re.match(r"Image \d+, .+: .+ found, \d+ false alarms?\.$|Image \d+, Ground", str(p["alt"]))
        for p in pictures
    )
    assert len({picture["alt"] for picture in pictures}) == len(pictures)


def test_tables_have_captions_and_scopes(demo_page: str) -> None:
    elements = Elements(demo_page)

    assert len(elements.named("caption")) == len(elements.named("table")) == 2
    assert all("scope" in cell for cell in elements.named("th"))


def test_there_is_one_main_heading_and_every_link_inside_leads_somewhere(demo_page: str) -> None:
    elements = Elements(demo_page)
    ids = {a["id"] for _, a in elements.found if "id" in a}

    assert len(elements.named("h1")) == 1
    assert {str(a["href"])[1:] for a in elements.named("a")} <= ids


def test_ids_occur_once(demo_page: str) -> None:
    ids = [a["id"] for _, a in Elements(demo_page).found if "id" in a]

    assert len(ids) == len(set(ids))


def test_the_numbers_of_every_run_are_in_the_tables(demo_page: str) -> None:
    for text in ("70.7", "31.5", "50.5", "55.3", "42.0", "61\u00a0%", "126\u00a0k", "14.2\u00a0ms"):
        assert text in demo_page


def test_task_and_distillation_losses_are_drawn_apart(demo_page: str) -> None:
    assert "detection: cls" in demo_page
    assert "distillation: crosskd/level0" in demo_page


def test_only_what_was_used_is_cited(demo_page: str) -> None:
    keys = re.findall(r"^@\w+\{(\w+),", citations_of(demo_page), re.MULTILINE)

    assert keys == ["wang2024crosskd", "cao2022pkd", *keys[2:3], "li2020gfl"]
    assert "tid" in keys[2]


def citations_of(page: str) -> str:
    (found,) = re.findall(r'aria-label="BibTeX">(.*?)</pre>', page, re.DOTALL)
    return str(found)


@pytest.mark.parametrize(
    ("data", "student", "expected"),
    [
        ("coco:/data/coco", "faster_rcnn-r50", {"ren2015faster_rcnn", "lin2014coco"}),
        ("voc:/data/VOCdevkit", "fcos-r18", {"tian2019fcos", "everingham2010voc"}),
        ("coco:/data/cells", "deformable_detr-r50", {"zhu2021deformable_detr"}),
    ],
)
def test_detectors_and_data_are_cited(
    tmp_path: Path, data: str, student: str, expected: set[str]
) -> None:
    page = page_of(made_up.run(tmp_path / "half", ap=None, data=data, student=student))

    assert set(re.findall(r"^@\w+\{(\w+),", citations_of(page), re.MULTILINE)) == expected


def test_a_method_without_public_code_is_marked_as_our_reading(demo_page: str) -> None:
    marked = re.findall(r"<h3>(\w+)</h3>(?:(?!</article>).)*Our reading", demo_page, re.DOTALL)

    assert marked == ["tid"]


def test_its_row_in_the_table_says_so(demo_page: str) -> None:
    rows = re.findall(r'<th scope="row">(\S+) <span class="quiet">our reading of (\w+)', demo_page)

    assert set(rows) == {("tid", "tid")}


def test_the_commands_are_there(demo_page: str, demo_folder: Path) -> None:
    assert f"detdistill demo --budget small --out {demo_folder}" in demo_page
    assert "detdistill train --out teacher" in demo_page


def test_the_same_folders_make_the_same_page(demo_folder: Path, demo_page: str) -> None:
    again = build([demo_folder], demo_folder / "again.html")

    assert again.read_text(encoding="utf-8") == demo_page


def test_nothing_from_a_run_becomes_markup(tmp_path: Path) -> None:
    made_up.run(tmp_path / "alone", student=NASTY)
    pkd = {"pkd": {"weight": NASTY}}
    made_up.run(tmp_path / "pkd", student=NASTY, methods=pkd)
    made_up.run(tmp_path / "own", student=NASTY, methods={NASTY: {}})

    page = page_of(*sorted(path for path in tmp_path.iterdir()))

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_a_foreign_method_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "code"
    package.mkdir()
    made_up.write(package / "foreign_method.py", "raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(package))

    page = page_of(made_up.run(tmp_path / "own", methods={"foreign_method.x": {"weight": 2}}))

    assert "from outside this package" in page


def test_an_unfinished_run_alone_still_makes_a_page(tmp_path: Path) -> None:
    page = page_of(made_up.run(tmp_path / "half", ap=None, methods={"pkd": {}}))

    assert "No run has finished yet" in page
    assert "is not finished" in page
    assert "distillation: pkd/level0" in page


def test_images_that_are_gone_leave_a_note(tmp_path: Path) -> None:
    folder = made_up.run(tmp_path / "one")
    text = (folder / "evaluation.json").read_text()
    made_up.write(
        folder / "evaluation.json", text.replace('"data": "shapes"', '"data": "coco:/nowhere"')
    )

    assert "The test images cannot be shown" in page_of(folder)


def test_the_teachers_run_is_found_by_itself(tmp_path: Path) -> None:
    root = made_up.demo(tmp_path / "demo")

    page = page_of(root / "crosskd+pkd", root / "student")

    assert "61\u00a0% of the gap closed" in page


def test_several_seeds_show_mean_deviation_and_number(tmp_path: Path) -> None:
    page = page_of(made_up.several_seeds(tmp_path / "seeds"))

    assert "30.2 ± 4.0" in page
    assert "n = 3" in page
    assert "+13.8 ± 2.2" in page


def test_a_folder_as_output_gets_a_report_in_it(tmp_path: Path) -> None:
    run = made_up.run(tmp_path / "one")

    assert build([run], run) == run / "report.html"
    assert (run / "report.html").is_file()


def test_an_output_that_cannot_be_written_is_the_users_mistake(tmp_path: Path) -> None:
    run = made_up.run(tmp_path / "one")
    made_up.write(tmp_path / "file", "")

    with pytest.raises(UserError, match="Cannot write"):
        build([run], tmp_path / "file" / "report.html")


def test_the_report_never_imports_the_training() -> None:
    code = "import sys, detdistill.report; sys.exit('detdistill.train' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_single_run_shows_where_it_fails(tmp_path: Path) -> None:
    page = page_of(made_up.run(tmp_path / "one"))

    assert "Where the detector fails" in page
    assert "Where the detectors differ" not in page


def test_figures_are_shown_with_their_words(tmp_path: Path) -> None:
    page = page_of(made_up.everything(tmp_path / "demo"))
    pictures = [str(picture["alt"]) for picture in Elements(page).named("img")]

    assert "Figures of crosskd+pkd" in page
    names = ["errors", "values-3", "values-14", *(f"scores-{who}" for who in made_up.ROLES)]
    assert [alt for alt in pictures if alt.startswith("A drawing")] == [
        f"A drawing: {name}." for name in names
    ]
    kinds = [a["data-kind"] for a in Elements(page).named("div") if "data-kind" in a]
    assert kinds == ["single", "tabs", "tabs"]
    assert "After TID, figure 4." in page
    assert "detdistill explain" not in page


def test_figures_of_runs_with_the_same_methods_are_told_apart(tmp_path: Path) -> None:
    runs = [
        made_up.run(tmp_path / name, methods={"pkd": {}}, images=images)
        for name, images in (("few", 100), ("many", 300), ("twin", 300))
    ]
    for run in runs[:2]:
        made_up.explained(run)
    page = page_of(*runs)

    found = [line for line in page.splitlines() if ">Figures of " in line and "<h2" in line]
    assert len(found) == 2
    assert all(f"pkd, gfl-mini-w8 on shapes, {n} labelled" in page for n in (100, 300))


def test_without_figures_the_page_says_how_to_make_them(demo_page: str, demo_folder: Path) -> None:
    assert f"detdistill explain {demo_folder / 'crosskd+pkd'}" in demo_page


def test_huge_pictures_are_made_smaller_and_small_drawings_stay_sharp(tmp_path: Path) -> None:
    run = made_up.run(tmp_path / "one")
    folder = made_up.explained(run)
    Image.effect_noise((4000, 400), 50).save(folder / "errors.png")
    Image.effect_noise((800, 400), 50).save(folder / "values-14.png")
    made_up.write(folder / "values-3.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>")

    pictures = {str(p["alt"]): p for p in Elements(page_of(run)).named("img")}

    names = ("errors", "values-14", "values-3")
    large, heavy, small = (pictures[f"A drawing: {name}."] for name in names)
    assert (large["width"], large["height"]) == ("1600", "160")
    assert len(str(large["src"])) < 0.5 * (folder / "errors.png").stat().st_size
    assert (heavy["width"], str(heavy["src"])[:15]) == ("800", "data:image/webp")
    assert str(small["src"]).startswith("data:image/svg+xml")


@pytest.mark.parametrize("index", ["{}", '[{"name": "x"}]', "[1"])
def test_a_broken_index_of_figures_is_the_users_mistake(tmp_path: Path, index: str) -> None:
    run = made_up.run(tmp_path / "one")
    made_up.write(made_up.explained(run) / "index.json", index)

    with pytest.raises(UserError, match=r"index\.json"):
        page_of(run)


def test_a_picture_that_is_gone_is_the_users_mistake(tmp_path: Path) -> None:
    run = made_up.run(tmp_path / "one")
    (made_up.explained(run) / "errors.png").unlink()

    with pytest.raises(UserError, match=r"detdistill explain .*one"):
        page_of(run)


def test_a_comparison_is_reproduced_by_one_command(tmp_path: Path) -> None:
    root = made_up.several_seeds(tmp_path / "seeds")
    made_up.write(root / "comparison.yaml", "methods: [pkd]")

    page = page_of(root)

    assert f"detdistill compare --config {root / 'comparison.yaml'} --out {root}" in page
    assert "detdistill train" not in page
