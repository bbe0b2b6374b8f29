"""Maps over pictures: one strip per row, colours that can be compared, pictures that are seen."""

import torch

from detdistill.show.maps import Picture, Strip, level_name, sheet

STRIDES = (8, 16)


def strip(label: str, highest: float, scale: str = "") -> Strip:
    picture = Picture(
        name="picture 3",
        image=torch.full((3, 40, 48), 200, dtype=torch.uint8),
        boxes=torch.tensor([[4.0, 4.0, 20.0, 30.0]]),
    )
    maps = tuple(torch.full((-(-40 // s), -(-48 // s)), highest / s) for s in STRIDES)
    return Strip(label=label, picture=picture, maps=maps, unit="weight", scale=scale)


def colored(strips: list[Strip]) -> list[tuple[float, float]]:
    """The range of colours of each strip's maps."""
    axes = sheet(strips, STRIDES).axes
    maps = [ax.images[1] for ax in axes if len(ax.images) > 1]
    return [image.get_clim() for image in maps]


def test_levels_are_called_by_how_often_they_halve_the_picture() -> None:
    assert [level_name(stride) for stride in (4, 8, 128)] == ["P2", "P3", "P7"]


def test_strips_of_one_scale_have_the_same_colours() -> None:
    assert colored([strip("a", 8.0), strip("b", 16.0)]) == [(0.0, 2.0)] * 4


def test_strips_of_other_scales_have_colours_of_their_own() -> None:
    found = colored([strip("a", 8.0, scale="a"), strip("b", 16.0, scale="b")])
    assert found == [(0.0, 1.0)] * 2 + [(0.0, 2.0)] * 2


def test_a_map_of_nothing_hides_nothing() -> None:
    axes = sheet([strip("a", 0.0)], STRIDES).axes
    image = next(ax.images[1] for ax in axes if len(ax.images) > 1)
    assert image.to_rgba(image.get_array())[..., 3].max() == 0


def test_cells_lie_where_they_belong_and_the_padding_is_cut_off() -> None:
    axes = [ax for ax in sheet([strip("a", 1.0)], STRIDES).axes if len(ax.images) > 1]
    for ax, stride in zip(axes, STRIDES, strict=True):
        left, right, bottom, top = ax.images[1].get_extent()
        assert (left, top) == (0, 0)
        assert (right, bottom) == (-(-48 // stride) * stride, -(-40 // stride) * stride)
        assert (ax.get_xlim(), ax.get_ylim()) == ((0, 48), (40, 0))


def test_the_words_are_there() -> None:
    axes = sheet([strip("teacher", 1.0)], STRIDES).axes
    said = {text for ax in axes for text in (ax.get_title(), ax.get_title("left"), ax.get_ylabel())}
    assert {"picture 3", "teacher", "P3: cells of 8 px", "P4: cells of 16 px", "weight"} <= said
