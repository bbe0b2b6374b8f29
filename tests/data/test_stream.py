from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from detdistill import data
from detdistill.data.transforms import flip
from detdistill.errors import UserError
from detdistill.structures import Batch

LEVEL = "shapes:tiny"


def batches(start: int = 0, steps: int = 6, length: int = 10, **options: int) -> list[Batch]:
    settings = {"seed": 3, "batch_size": 4, **options}
    dataset = data.open(LEVEL, "train", limit=length)
    return list(data.stream(dataset, start=start, steps=steps, **settings))


def same(one: Iterable[Batch], other: Iterable[Batch]) -> bool:
    return all(
        torch.equal(a.images, b.images)
        and torch.equal(a.ids, b.ids)
        and torch.equal(a.truth.boxes, b.truth.boxes)
        and torch.equal(a.truth.labels, b.truth.labels)
        and torch.equal(a.truth.valid, b.truth.valid)
        for a, b in zip(one, other, strict=True)
    )


def ids(of: Iterable[Batch]) -> list[int]:
    return torch.cat([batch.ids for batch in of]).tolist()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 1, 4])
def test_a_jump_to_a_step_gives_what_running_there_gives(start: int, workers: int) -> None:
    assert same(batches(start, workers=workers), batches()[start:])


def test_every_pass_shows_every_picture_once_in_an_order_of_its_own() -> None:
    seen = ids(batches(steps=5))
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_the_last_batch_of_a_pass_is_filled_from_the_next() -> None:
    assert [len(batch.ids) for batch in batches(steps=6)] == [4] * 6


def test_another_seed_gives_another_order() -> None:
    assert ids(batches()) != ids(batches(seed=4))


def test_ranks_and_micro_batches_divide_each_batch() -> None:
    shares = [batches(steps=3, batch_size=8, rank=rank, world=2, accumulate=2) for rank in range(2)]
    for step, batch in enumerate(batches(steps=3, batch_size=8)):
        parts = [micro for share in shares for micro in share[2 * step : 2 * step + 2]]
        assert [len(part.ids) for part in parts] == [2, 2, 2, 2]
        assert ids(parts) == batch.ids.tolist()
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)


def test_about_half_of_the_pictures_are_mirrored_each_pass_anew() -> None:
    dataset = data.open(LEVEL, "train", limit=100)
    mirrored = []
    for number in range(2):
        passed = data.stream(
            dataset, seed=0, batch_size=1, start=100 * number, steps=100 * (number + 1)
        )
        mirrored.append({int(b.ids) for b in passed if not torch.equal(b.images[0], image(b))})
    assert all(35 < len(pass_) < 65 for pass_ in mirrored)
    assert mirrored[0] != mirrored[1]


def image(batch: Batch) -> torch.Tensor:
    return data.open(LEVEL, "train")[int(batch.ids)].image


@pytest.mark.parametrize("chance", [0, 1])
def test_flips_happen_never_at_0_and_always_at_1(chance: int) -> None:
    dataset = data.open(LEVEL, "train", limit=10)
    for batch in batches(steps=2, flip=chance):
        for row, number in enumerate(batch.ids.tolist()):
            expected = flip(dataset[number]) if chance else dataset[number]
            assert torch.equal(batch.images[row], expected.image)
            count = len(expected.labels)
            assert torch.equal(batch.truth.boxes[row, :count], expected.boxes)


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_leaves_the_global_random_state_alone(workers: int) -> None:
    before = torch.get_rng_state()
    batches(steps=2, workers=workers)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_that_cannot_be_divided_equally_is_refused() -> None:
    with pytest.raises(UserError, match="multiple of 3"):
        batches(world=3)


def test_a_broken_picture_is_named_in_one_line_also_by_a_worker(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    data.shapes.write(folder, "tiny", train=4, tune=1, test=1)
    broken = folder / "train2017" / "000002.jpg"
    dataset = data.open(f"coco:{folder}", "train")
    broken.write_bytes(b"no picture")
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"000002\.jpg") as caught:
            list(data.stream(dataset, seed=0, batch_size=4, steps=1, workers=workers))
        assert "\n" not in str(caught.value)
