"""Winograd's convolutions against ordinary ones."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from detdistill import detectors, evaluate, winograd
from detdistill.structures import DensePredictions, Reads
from detdistill.winograd import WinogradConv2d, ordinary_convolutions, over_levels, quicken

CHANNELS = 16

SIZES = ((21, 30), (12, 8), (3, 5), (1, 1))
"""Of maps whose sides are and are not multiples of a tile's."""


def pyramid(dtype: torch.dtype, channels: int = CHANNELS) -> list[Tensor]:
    """Two images at several levels, channels last."""
    random = torch.Generator().manual_seed(0)
    maps = (torch.randn(2, channels, *size, generator=random, dtype=dtype) for size in SIZES)
    return [level.contiguous(memory_format=torch.channels_last) for level in maps]


def twins(dtype: torch.dtype, **settings: bool) -> tuple[nn.Conv2d, nn.Conv2d]:
    """An ordinary convolution, and one with the same weights that is quick."""
    torch.manual_seed(0)
    plain = nn.Conv2d(CHANNELS, CHANNELS + 5, 3, padding=1, dtype=dtype, **settings)
    quick = copy.deepcopy(plain)
    quicken(quick)
    assert isinstance(quick, WinogradConv2d)
    return plain, quick


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-5)], ids=str
)
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_a_convolution(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tolerance: float, *, bias: bool
) -> None:
    monkeypatch.setattr(winograd, "WORTH_IT", 0)
    monkeypatch.setattr(winograd, "AT_ONCE", 50)
    found: list[list[Tensor]] = []
    for conv in twins(dtype, bias=bias):
        levels = tuple(level.requires_grad_() for level in pyramid(dtype))
        outputs = over_levels(conv, levels)
        torch.stack([output.sin().sum() for output in outputs]).sum().backward()
        gradients = [*(level.grad for level in levels), *(p.grad for p in conv.parameters())]
        found.append([*outputs, *gradients])  # type: ignore[list-item]  # all are there
    for plain, quick in zip(*found, strict=True):
        scale = plain.abs().max()
        torch.testing.assert_close(quick / scale, plain / scale, rtol=0, atol=tolerance)


def test_in_half_precision_it_rounds_as_much_as_a_few_convolutions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(winograd, "WORTH_IT", 0)
    monkeypatch.setattr(winograd, "AT_ONCE", 50)
    plain, quick = twins(torch.float32)
    true, rounded, more = (
        _values_and_gradients(conv, half=half)
        for conv, half in ((plain, False), (plain, True), (quick, True))
    )
    for name, truth in true.items():
        usual, ours = ((said[name] - truth).norm() for said in (rounded, more))
        assert ours < 10 * usual, name
        assert not torch.equal(more[name], rounded[name]), name
        assert more[name].dtype == rounded[name].dtype


def _values_and_gradients(conv: nn.Module, *, half: bool) -> dict[str, Tensor]:
    levels = tuple(level.requires_grad_() for level in pyramid(torch.float32))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        outputs = over_levels(conv, levels)
    conv.zero_grad()
    torch.stack([output.float().sin().sum() for output in outputs]).sum().backward()
    return {
        **{f"output {number}": output.detach() for number, output in enumerate(outputs)},
        **{f"gradient of level {number}": level.grad for number, level in enumerate(levels)},
        **{f"gradient of {name}": p.grad.clone() for name, p in conv.named_parameters()},
    }


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few channels and tiles there are."""
    monkeypatch.setattr(winograd, "WORTH_IT", 0)


@pytest.mark.usefixtures("always")
def test_it_is_left_to_others_what_they_do_better() -> None:
    plain, quick = twins(torch.float32)
    (level, *_) = pyramid(torch.float32)
    assert not torch.equal(quick(level), plain(level))
    contiguous = level.contiguous()
    assert torch.equal(quick(contiguous), plain(contiguous))
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(quick(level), plain(level))
    with ordinary_convolutions():
        assert torch.equal(quick(level), plain(level))


@pytest.mark.usefixtures("always")
def test_size_and_memory_are_told_as_of_ordinary_convolutions() -> None:
    detector = detectors.build("gfl-mini-w8", ("circle", "square"))
    detector.to(memory_format=torch.channels_last)
    plain, quick = (
        evaluate.facts(which, (64, 64), repeats=1)
        for which in (detector, evaluate.placed(detector))
    )
    assert any(isinstance(module, WinogradConv2d) for module in detector.modules())
    assert quick["flops"] == plain["flops"]
    assert quick["peak_tensor_mb"] == plain["peak_tensor_mb"]


@pytest.mark.usefixtures("always")
def test_compiled_it_is_an_ordinary_convolution_in_one_graph() -> None:
    plain, quick = twins(torch.float32)
    (level, *_) = pyramid(torch.float32)
    compiled = torch.compile(quick, backend="eager", fullgraph=True)
    assert torch.equal(compiled(level), plain(level))


@pytest.mark.usefixtures("always")
def test_a_copy_is_quick_too() -> None:
    _, quick = twins(torch.float32)
    (level, *_) = pyramid(torch.float32)
    assert torch.equal(copy.deepcopy(quick)(level), quick(level))


def test_a_few_channels_are_convolved_as_usual() -> None:
    plain, quick = twins(torch.float32)
    for level in pyramid(torch.float32):
        assert torch.equal(quick(level), plain(level))


@pytest.mark.parametrize(
    "settings", [{"stride": 2}, {"padding": 0}, {"groups": 2}, {"dilation": 2}, {"kernel_size": 1}]
)
def test_other_convolutions_stay_what_they_are(settings: dict[str, int]) -> None:
    conv = nn.Conv2d(4, 4, **{"kernel_size": 3, "padding": 1, **settings})
    quicken(conv)
    assert type(conv) is nn.Conv2d


@pytest.mark.usefixtures("always")
def test_only_the_gradients_that_are_wanted_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    _, quick = twins(torch.float32)
    (level, *_) = pyramid(torch.float32)
    cut: list[int] = []
    tiles = winograd._tiles
    monkeypatch.setattr(
        winograd, "_tiles", lambda maps, side: cut.append(side) or tiles(maps, side)
    )
    quick.requires_grad_(requires_grad=False)
    quick(level.requires_grad_()).sum().backward()
    assert cut == [winograd.FRAMED, winograd.TILE]
    assert level.grad is not None
    assert quick.weight.grad is None


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("family", ["gfl", "retinanet", "fcos", "faster_rcnn"])
def test_a_detector_says_the_same(family: str) -> None:
    torch.manual_seed(0)
    detector = detectors.build(f"{family}-mini-w8", ("circle", "square")).eval()
    detector.to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 64, 96).contiguous(memory_format=torch.channels_last) * 255
    before = detector(images, reads=Reads(predictions=True))
    quicken(detector)
    after = detector(images, reads=Reads(predictions=True))
    kinds = [type(module) for module in detector.modules()]
    assert WinogradConv2d in kinds
    said = [before.neck, after.neck]
    if isinstance(before.predictions, DensePredictions):
        said = [before.dense.logits + before.dense.boxes, after.dense.logits + after.dense.boxes]
    for plain, quick in zip(*said, strict=True):
        assert not torch.equal(plain, quick)
        torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-4)
