"""`detdistill data`: look through a data set, convert it, show some of it."""

from pathlib import Path

import pytest
from PIL import Image

from detdistill import data
from detdistill.cli import main
from detdistill.data import shapes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shapes.write(tmp_path / "made", "tiny", layout="yolo", train=3, tune=2, test=1)
    return tmp_path / "made"


def test_a_check_counts_and_names_what_is_wrong(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "images/val/000001.jpg").write_bytes(b"")
    with (folder / "labels/train/000000.txt").open("a") as file:
        file.write("0 nan 0.5 0.1 0.1\n")
    assert main(["data", "check", f"yolo:{folder}"]) == 1
    said = capsys.readouterr()
    objects = sum(len(sample.labels) for sample in data.open("shapes:tiny", "train", 3))
    train = next(line for line in said.out.splitlines() if line.startswith("train  "))
    assert train.split()[1:5] == ["3", "0", str(objects), "0"]
    assert "2 defect(s)" in said.out
    assert "000000.txt, line " in said.err
    assert "val/000001.jpg" in said.err


def test_a_converted_data_set_has_the_same_objects(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "as voc"
    assert main(["data", "convert", f"yolo:{folder}", "--to", "voc", "--out", str(out)]) == 0
    for split, count in (("train", 3), ("tune", 2), ("test", 1)):
        mine, theirs = data.open(f"voc:{out}", split), data.open(f"yolo:{folder}", split)
        assert len(mine) == count
        assert [s.labels.tolist() for s in mine] == [s.labels.tolist() for s in theirs]


@pytest.mark.parametrize("without", ["train", "test"])
def test_pictures_without_an_object_teach_nothing_and_measure_nothing(
    folder: Path, without: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (folder / "labels" / without).iterdir():
        file.write_text("")
    words = ["--data", f"yolo:{folder}", "--student", "gfl-mini-w8", "--steps", "1"]
    out = tmp_path / "run"
    code = main(["train", *words, "--out", str(out)])
    said = capsys.readouterr()
    if without == "train":
        assert code == 2
        assert "show no object, so there is nothing to learn" in said.err
        assert not out.exists()
    else:
        assert code == 0
        assert "note: test data: none of the pictures shows an object" in said.out + said.err
        assert "test: AP -, AP50 -" in said.out + said.err


def test_pictures_are_shown_as_the_training_sees_them(tmp_path: Path) -> None:
    files = {chance: tmp_path / f"{chance}.png" for chance in ("0.0", "1.0")}
    for chance, file in files.items():
        words = ["shapes:tiny", "--out", str(file), "--count", "2", "--flip", chance]
        assert main(["data", "show", *words]) == 0
    plain, flipped = (Image.open(file) for file in files.values())
    assert plain.size == flipped.size
    assert plain.tobytes() != flipped.tobytes()


def test_random_changes_are_shown_with_their_padding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "shown.png"
    words = ["data", "show", "shapes:tiny", "--out", str(file), "--count", "2"]
    assert main([*words, "--letterbox", "64", "--augment.jitter", "[0.2,0.3]"]) == 0
    sheet = Image.open(file).convert("RGB")
    assert sheet.getpixel((sheet.width - 20, sheet.height - 20)) == (0, 0, 0)
    assert main([*words, "--augment.crop", "64"]) == 2
    assert "augment.jitter" in capsys.readouterr().err


def test_an_unknown_action_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["data", "chek"]) == 2
    assert "'check'" in capsys.readouterr().err
