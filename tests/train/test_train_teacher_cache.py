import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from tests.train.fakes import batch, part
from torch.utils import _pytree as pytree

from detdistill import detectors
from detdistill.errors import UserError
from detdistill.structures import Batch, DetectorOutput, Reads
from detdistill.train.experiment import Experiment
from detdistill.train.frozen import Frozen
from detdistill.train.loop import train
from detdistill.train.teacher_cache import CacheCounts, TeacherCache, cache_summary

CLASSES = ("disc", "square")
FAMILIES = (
    "gfl-mini-w8",
    "fcos-mini-w8",
    "faster_rcnn-quick-w8",
    "deformable_detr-quick-w8",
)
READS = Reads(predictions=True, backbone=True)


class Asked:
    """A teacher that counts."""

    def __init__(self, name: str = "gfl-mini-w8", reads: Reads = READS) -> None:
        torch.manual_seed(0)
        self.detector = detectors.build(name, CLASSES).eval()
        self.reads = reads
        self.pictures = 0

    @torch.no_grad()
    def __call__(self, pictures: Batch) -> DetectorOutput:
        self.pictures += len(pictures.images)
        output: DetectorOutput = self.detector(pictures.images, pictures.truth.sizes, self.reads)
        return output


def cached(folder: Path, teacher: Asked) -> TeacherCache:
    return TeacherCache(folder, teacher, teacher.reads)


def tensors(output: DetectorOutput) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def equal(one: DetectorOutput, other: DetectorOutput) -> bool:
    pairs = zip(tensors(one), tensors(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_is_what_was_said_in_half_precision(family: str, tmp_path: Path) -> None:
    teacher = Asked(family)
    said = teacher(batch())
    cache = cached(tmp_path, teacher)
    first, second = cache(batch()), cache(batch())
    assert equal(first, second)
    assert pytree.tree_structure(first) == pytree.tree_structure(said)
    for kept, value in zip(tensors(first), tensors(said), strict=True):
        assert kept.dtype == value.dtype
        torch.testing.assert_close(kept, value, rtol=1e-3, atol=1e-5)


def test_a_teacher_is_asked_once_for_each_picture(tmp_path: Path) -> None:
    teacher = Asked()
    cache = cached(tmp_path, teacher)
    cache(part(batch(), slice(0, 2)))
    cache(batch())
    cache(batch())
    assert (teacher.pictures, *cache.counts) == (4, 4, 10, None)


def test_a_later_run_asks_only_for_the_form_of_an_answer(tmp_path: Path) -> None:
    first = cached(tmp_path, Asked())(batch())
    teacher = Asked()
    cache = cached(tmp_path, teacher)
    assert equal(cache(batch()), first)
    assert equal(cache(batch()), first)
    assert teacher.pictures == 1


def test_a_mirrored_picture_is_another_one(tmp_path: Path) -> None:
    cache = cached(tmp_path, Asked())
    cache(batch())
    mirrored = replace(batch(), images=batch().images.flip(-1))
    cache(mirrored)
    assert cache.counts.asked == 2 * len(mirrored.images)


def test_padding_and_size_are_part_of_the_picture(tmp_path: Path) -> None:
    cache = cached(tmp_path, Asked())
    one = batch()
    cache(one)
    cache(replace(one, truth=replace(one.truth, sizes=one.truth.sizes - 32)))
    cache(replace(one, images=torch.nn.functional.pad(one.images, (0, 32))))
    assert cache.counts.asked == 3 * len(one.images)


def test_methods_that_read_other_things_do_not_meet(tmp_path: Path) -> None:
    cached(tmp_path, Asked(reads=Reads()))(batch())
    output = cached(tmp_path, Asked(reads=Reads(towers=frozenset({1}))))(batch())
    assert set(output.towers.cls) == {1}


def test_a_neck_that_nobody_reads_takes_no_room(tmp_path: Path) -> None:
    without, whole = Reads(neck=False, predictions=True), Reads(predictions=True)
    sizes, outputs = [], []
    for reads in (without, whole):
        teacher = Frozen(detectors.build("gfl-mini-w8", CLASSES))
        cache = TeacherCache(
            tmp_path, lambda b, r=reads, t=teacher: t(b.images, b.truth.sizes, r), reads
        )
        outputs.append(cache(batch()))
        sizes.append(cache.size(batch()))
    neck = outputs[1].neck
    assert not outputs[0].neck
    assert sizes[1] - sizes[0] == sum(2 * level[0].numel() for level in neck)


def test_an_answer_that_was_cut_off_is_asked_for_again(tmp_path: Path) -> None:
    teacher = Asked()
    cache = cached(tmp_path, teacher)
    first = cache(batch())
    file = next(tmp_path.rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:100])
    again = cache(batch())
    torch.testing.assert_close(again.neck, first.neck, rtol=2e-3, atol=1e-4)
    assert cache.counts.asked == len(batch().images) + 1


def test_what_half_precision_cannot_hold_is_kept_whole(tmp_path: Path) -> None:
    neck = (torch.full((1, 1, 2, 2), 1e6),)
    cache = TeacherCache(tmp_path, lambda _: DetectorOutput(neck=neck), Reads())
    cache(batch(images=1))
    assert torch.equal(cache(batch(images=1)).neck[0], neck[0])


def test_a_folder_that_cannot_be_written_ends_no_training(tmp_path: Path) -> None:
    (tmp_path / "neck").write_text("in the way")
    cache = cached(tmp_path, Asked(reads=Reads()))
    cache(batch())
    assert "Cannot write" in cache_summary([cache.counts])


def test_a_full_disk_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    cache = cached(tmp_path, Asked())
    assert tensors(cache(batch()))
    assert "no space left" in cache_summary([cache.counts])
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_no_more_is_written_than_was_agreed_to(tmp_path: Path) -> None:
    teacher = Asked()
    size = TeacherCache(tmp_path, teacher, READS).size(batch())
    cache = TeacherCache(tmp_path, teacher, READS, room=2.5 * size)
    cache(batch())
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    assert "more room" in cache_summary([CacheCounts(), cache.counts])


def test_an_answer_does_not_depend_on_what_was_asked_along_with_it(tmp_path: Path) -> None:
    neck = torch.stack([torch.full((1, 2, 2), 1e6), torch.full((1, 2, 2), 1 / 3)])
    cache = TeacherCache(tmp_path, lambda asked: DetectorOutput(neck=(neck[asked.ids],)), Reads())
    cache(batch(images=2))
    sizes = sorted(file.stat().st_size for file in tmp_path.rglob("*.safetensors"))
    assert sizes[0] < sizes[1]


def test_boxes_of_a_large_picture_are_kept_to_the_digit(tmp_path: Path) -> None:
    teacher = Asked("fcos-mini-w8")
    said = teacher(batch())
    kept = cached(tmp_path, teacher)(batch())
    assert all(map(torch.equal, kept.dense.boxes, said.dense.boxes))


def distilled(plain: Experiment, teacher: Path, cache: Path | None) -> Experiment:
    methods: dict[str, dict[str, object]] = {"crosskd": {}, "pkd": {}}
    return replace(
        plain, teacher=str(teacher), methods=methods, teacher_cache=str(cache) if cache else None
    )


def test_training_with_a_cache_is_training_without_within_half_precision(
    plain: Experiment, teacher: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    train(distilled(plain, teacher, None), tmp_path / "without", device="cpu")
    train(distilled(plain, teacher, cache), tmp_path / "cold", device="cpu")
    train(distilled(plain, teacher, cache), tmp_path / "warm", device="cpu")
    without, cold, warm = (_weights(tmp_path / name) for name in ("without", "cold", "warm"))
    assert all(torch.equal(cold[name], warm[name]) for name in cold)
    for name, value in without.items():
        torch.testing.assert_close(cold[name], value, rtol=0, atol=2e-3)
    assert "asked for 1 of" in (tmp_path / "warm" / "train.log").read_text()


def test_a_cache_larger_than_agreed_to_is_refused_before_anything_is_written(
    plain: Experiment, teacher: Path, tmp_path: Path
) -> None:
    experiment = replace(distilled(plain, teacher, tmp_path / "cache"), teacher_cache_gb=1e-6)
    with pytest.raises(UserError, match=r"24 views of .* kB.*--teacher_cache_gb"):
        train(experiment, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()


def test_the_advice_for_a_large_cache_is_enough(
    plain: Experiment, teacher: Path, tmp_path: Path
) -> None:
    experiment = replace(distilled(plain, teacher, tmp_path / "cache"), teacher_cache_gb=1e-6)
    with pytest.raises(UserError) as refused:
        train(experiment, tmp_path / "run", device="cpu")
    advised = float(str(refused.value).split("--teacher_cache_gb ")[1].split(",")[0])
    train(replace(experiment, teacher_cache_gb=advised), tmp_path / "run", device="cpu")
    assert "not all kept" not in (tmp_path / "run" / "train.log").read_text()


def test_another_teacher_is_asked_anew(plain: Experiment, teacher: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    train(replace(plain, seed=5), other, device="cpu")
    for number, source in enumerate((teacher, other)):
        experiment = distilled(plain, source, tmp_path / "cache")
        train(experiment, tmp_path / f"run{number}", device="cpu")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    shutil.rmtree(tmp_path / "cache")


def _weights(run: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run / "student.safetensors")
