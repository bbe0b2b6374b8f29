import torch

from detdistill import data
from detdistill.data import Sample


def sample(height: int, width: int, objects: int = 0, crowd: tuple[int, ...] = ()) -> Sample:
    marks = torch.zeros(objects, dtype=torch.bool)
    marks[list(crowd)] = True
    return Sample(
        image=torch.full((3, height, width), 200, dtype=torch.uint8),
        boxes=torch.arange(4.0 * objects).view(objects, 4),
        labels=torch.arange(objects),
        crowd=marks,
        id=height,
    )


def test_images_are_padded_right_and_below_to_a_multiple_of_32() -> None:
    batch = data.collate([sample(40, 30), sample(20, 65)])
    assert batch.images.shape == (2, 3, 64, 96)
    assert batch.images.dtype == torch.uint8
    assert (batch.images[0, :, :40, :30] == 200).all()
    assert batch.images[0].sum() == 200 * 3 * 40 * 30
    assert batch.truth.sizes.tolist() == [[40, 30], [20, 65]]
    assert batch.ids.tolist() == [40, 20]


def test_images_of_one_fitting_size_are_not_padded() -> None:
    assert data.collate([sample(64, 32), sample(64, 32)]).images.shape == (2, 3, 64, 32)


def test_images_of_one_size_that_does_not_fit_are_padded() -> None:
    assert data.collate([sample(50, 50)]).images.shape == (1, 3, 64, 64)


def test_objects_are_padded_to_the_fullest_image() -> None:
    truth = data.collate([sample(32, 32, 1), sample(32, 32, 3)]).truth
    assert truth.boxes.shape == (2, 3, 4)
    assert truth.valid.tolist() == [[True, False, False], [True, True, True]]
    assert truth.labels[1].tolist() == [0, 1, 2]


def test_a_crowd_region_is_no_object_to_learn() -> None:
    truth = data.collate([sample(32, 32, 2, crowd=(1,))]).truth
    assert truth.valid.tolist() == [[True, False]]
    assert truth.crowd.tolist() == [[False, True]]


def test_a_batch_without_any_object_has_one_invalid_place() -> None:
    truth = data.collate([sample(32, 32), sample(32, 32)]).truth
    assert truth.boxes.shape == (2, 1, 4)
    assert not truth.valid.any()
    assert not truth.crowd.any()
