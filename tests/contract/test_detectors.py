"""What every detector must do; a new family joins by being listed in the presets."""

from __future__ import annotations

import pytest
import torch
from tests import gpu
from torch import Tensor

from detdistill import detectors
from detdistill.detectors import Detector
from detdistill.detectors.assign import normaliser
from detdistill.detectors.presets import FAMILIES
from detdistill.structures import EVERYTHING, Reads, Spec, Truth, local_mean

CLASSES = ("circle", "square", "star")
EVERY_READ = Reads(predictions=True, towers=frozenset({0, 1, 2}), backbone=True)


def built(family: str) -> Detector:
    torch.manual_seed(0)
    return detectors.build(f"{family}-mini-w8", CLASSES)


def that_predict(*kinds: str) -> list[str]:
    """The families whose predictions are `dense`, `region` or `query` ones."""
    return [family for family in sorted(FAMILIES) if built(family).spec.family in kinds]


@pytest.fixture(params=sorted(FAMILIES))
def detector(request: pytest.FixtureRequest) -> Detector:
    return built(request.param)


@pytest.fixture(params=that_predict("dense"))
def dense(request: pytest.FixtureRequest) -> Detector:
    return built(request.param)


@pytest.fixture(params=that_predict("region"))
def region(request: pytest.FixtureRequest) -> Detector:
    return built(request.param)


@pytest.fixture(params=that_predict("query"))
def query(request: pytest.FixtureRequest) -> Detector:
    return built(request.param)


def images(batch: int = 2, height: int = 64, width: int = 96) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


def truth_of(*boxes: list[list[float]], height: int = 64, width: int = 96) -> Truth:
    """One list of boxes per image."""
    fullest = max(1, *(len(image) for image in boxes))
    padded = torch.zeros(len(boxes), fullest, 4)
    valid = torch.zeros(len(boxes), fullest, dtype=torch.bool)
    for i, image in enumerate(boxes):
        padded[i, : len(image)] = torch.tensor(image).reshape(-1, 4)
        valid[i, : len(image)] = True
    return Truth(
        boxes=padded,
        labels=torch.arange(fullest).expand(len(boxes), -1) % len(CLASSES),
        valid=valid,
        crowd=torch.zeros_like(valid),
        sizes=torch.tensor([[height, width]]).expand(len(boxes), 2),
    )


def losses_of(detector: Detector, truth: Truth, pictures: Tensor) -> dict[str, Tensor]:
    losses, targets = detector.criterion(detector(pictures, truth.sizes), truth)
    assert targets.positives >= 1
    if targets.regions is None:
        positive = targets.labels < len(CLASSES)
        counted = normaliser(positive, local_mean, per_image=targets.per_image)
        assert targets.positives == counted
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    gradients = [p.grad for p in detector.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    return losses


def map_sizes(spec: Spec) -> list[tuple[int, int]]:
    return [(64 // stride, 96 // stride) for stride in spec.strides]


def test_neck_and_backbone_have_the_shapes_of_the_spec(detector: Detector) -> None:
    output, spec = detector(images(), None, EVERY_READ), detector.spec
    shapes = [(2, spec.channels, *size) for size in map_sizes(spec)]
    assert [level.shape for level in output.neck] == shapes
    assert output.backbone is not None
    assert tuple(m.shape[1] for m in output.backbone) == spec.backbone_channels


def test_dense_predictions_have_the_shapes_of_the_spec(dense: Detector) -> None:
    output, spec, sizes = dense(images(), None, EVERY_READ), dense.spec, map_sizes(dense.spec)
    emitted, priors = spec.priors_per_cell * len(CLASSES), spec.priors_per_cell
    assert [m.shape for m in output.dense.logits] == [(2, emitted, *s) for s in sizes]
    assert output.dense.decoded().shape == (2, priors * sum(h * w for h, w in sizes), 4)
    assert spec.quality == (output.dense.quality is not None)
    if output.dense.quality is not None:
        assert [m.shape for m in output.dense.quality] == [(2, priors, *s) for s in sizes]
    assert output.dense.flat_priors().shape == output.dense.decoded().shape[1:]
    assert set(output.towers.cls) == set(output.towers.reg) == {0, 1, 2}


def test_region_predictions_have_the_shapes_of_the_spec(region: Detector) -> None:
    output, spec, sizes = region(images()), region.spec, map_sizes(region.spec)
    assert [m.shape for m in output.dense.logits] == [(2, spec.priors_per_cell, *s) for s in sizes]
    proposals = output.regions.proposals
    trace = region.head.pool(output.neck, proposals)
    shape, side = proposals.valid.shape, spec.pool_size
    assert trace.features.shape == (*shape, spec.channels, side, side)
    scores = region.head.resume(trace)
    assert scores.logits.shape == (*shape, len(CLASSES) + 1)
    assert scores.decoded().shape == (*shape, len(CLASSES), 4)


def test_query_predictions_have_the_shapes_of_the_spec(query: Detector) -> None:
    output, spec = query(images(), None, EVERYTHING | Reads(encoder=True)), query.spec
    stages, queries = spec.stages, spec.queries
    assert [m.shape for m in output.queries.logits] == [(2, queries, len(CLASSES))] * stages
    assert [m.shape for m in output.queries.boxes] == [(2, queries, 4)] * stages
    cells = sum(height * width for height, width in map_sizes(spec))
    assert output.encoder.memory.shape == (2, cells, spec.channels)
    assert output.encoder.shapes == tuple(map_sizes(spec))
    assert output.encoder.valid_ratios.shape == (2, len(spec.strides), 2)
    assert output.encoder.padding.shape == (2, cells)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_nothing_comes_from_the_host_and_nothing_waits_for_the_gpu(family: str) -> None:
    with gpu.made_up() as device:
        with device:
            detector, pictures = built(family), images()
            truth = truth_of([[2, 3, 40, 50], [30, 8, 60, 40]], [])
        losses, _ = detector.criterion(detector(pictures, truth.sizes), truth)
    assert {loss.device.type for loss in losses.values()} == {device.type}


def test_what_is_not_read_is_not_there(detector: Detector) -> None:
    output = detector(images(), None, Reads())
    assert output.predictions is output.trace is output.backbone is None


def test_a_head_is_run_no_further_than_its_towers_are_read(dense: Detector) -> None:
    output = dense(images(), None, Reads(towers=frozenset({1})))
    everything = dense(images(), None, EVERY_READ)
    assert output.predictions is None
    for branch in ("cls", "reg"):
        cuts = getattr(output.towers, branch)
        assert set(cuts) == {1}
        torch.testing.assert_close(cuts[1], getattr(everything.towers, branch)[1])


def test_the_output_is_the_same_kind_of_thing_in_every_mode(detector: Detector) -> None:
    trained, evaluated = detector.train()(images()), detector.eval()(images())
    assert [m.shape for m in trained.neck] == [m.shape for m in evaluated.neck]
    assert type(trained.predictions) is type(evaluated.predictions)


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_resuming_from_a_cut_gives_the_same_predictions(dense: Detector, cut: int) -> None:
    output = dense(images(), None, EVERY_READ)
    resumed = dense.head.resume(output.towers, start=cut)
    torch.testing.assert_close(resumed.flat_logits(), output.dense.flat_logits())
    torch.testing.assert_close(resumed.flat_boxes(), output.dense.flat_boxes())
    if dense.spec.quality:
        torch.testing.assert_close(resumed.flat_quality(), output.dense.flat_quality())


def test_resuming_from_an_encoder_gives_the_same_predictions(query: Detector) -> None:
    query.eval()
    output = query(images(), torch.tensor([[64, 96], [40, 50]]), EVERYTHING | Reads(encoder=True))
    resumed = query.head.resume(output.encoder)
    torch.testing.assert_close(resumed.logits, output.queries.logits)
    torch.testing.assert_close(resumed.boxes, output.queries.boxes)


def test_resuming_from_pooled_features_is_classifying(region: Detector) -> None:
    output = region(images())
    proposals = output.regions.proposals
    resumed = region.head.resume(region.head.pool(output.neck, proposals))
    classified = region.head.classify(output.neck, proposals)
    torch.testing.assert_close(resumed.logits, classified.logits)
    torch.testing.assert_close(resumed.boxes, classified.boxes)


def test_proposals_lie_in_their_image_and_padding_is_empty(region: Detector) -> None:
    sizes = torch.tensor([[64, 96], [20, 30]])
    proposals = region(images(), sizes).regions.proposals
    low, high = proposals.boxes.chunk(2, dim=-1)
    assert proposals.valid.any(dim=1).all()
    assert (high > low).all(dim=-1).equal(proposals.valid)
    assert (low >= 0).all()
    assert (high <= sizes.flip(1).unsqueeze(1)).all()
    assert not proposals.boxes[~proposals.valid].any()


def test_towers_stand_after_their_activation_unless_asked_otherwise(dense: Detector) -> None:
    after = dense(images(), None, EVERY_READ).towers.cls[1]
    raw = dense(images(), None, EVERY_READ | Reads(preactivation=True)).towers.cls[1]
    assert min(level.min() for level in raw) < 0
    for level, before in zip(after, raw, strict=True):
        torch.testing.assert_close(level, before.relu())


def test_an_image_without_objects_is_fine(detector: Detector) -> None:
    losses_of(detector, truth_of([], [[8.0, 8, 40, 40]]), images())
    losses_of(detector, truth_of([], []), images())


def test_an_object_larger_than_the_image_is_fine(detector: Detector) -> None:
    losses_of(detector, truth_of([[-50.0, -50, 300, 300]]), images(1))


def test_five_hundred_objects_are_fine(detector: Detector) -> None:
    corner = torch.rand(500, 2, generator=torch.Generator().manual_seed(2)) * 50
    boxes = torch.cat([corner, corner + 10], dim=1).tolist()
    losses_of(detector, truth_of(boxes, [[1.0, 1, 9, 9]]), images())


def test_odd_sizes_and_a_batch_of_one_are_fine(detector: Detector) -> None:
    pictures = images(1, height=53, width=91)
    losses_of(detector, truth_of([[5.0, 5, 30, 30]], height=53, width=91), pictures)


def test_a_one_cell_map_is_fine(detector: Detector) -> None:
    detector.eval()
    pictures = images(1, height=16, width=16)
    losses_of(detector, truth_of([[2.0, 2, 14, 14]], height=16, width=16), pictures)


@pytest.mark.parametrize("family", that_predict("dense", "region"))
def test_padding_changes_nothing_that_is_inside(family: str) -> None:
    """Nor would it in a query detector, but for the GroupNorm of its neck, which looks at all."""
    detector = built(family).eval()
    picture, sizes = images(1, height=64, width=64), torch.tensor([[64, 64]])
    padded = torch.nn.functional.pad(picture, (0, 32), value=77)
    alone, beside = detector(picture, sizes).neck[0], detector(padded, sizes).neck[0]
    torch.testing.assert_close(alone[..., :4], beside[..., :4], rtol=1e-4, atol=1e-4)


TAKES_PADDING_FOR_BACKGROUND = {"fcos"}
"""As its authors do."""


@pytest.mark.parametrize(
    "family", sorted({*that_predict("dense", "region")} - TAKES_PADDING_FOR_BACKGROUND)
)
def test_priors_in_the_padding_have_no_weight(family: str) -> None:
    detector = built(family)
    truth = truth_of([[5.0, 5, 30, 30]], height=32, width=32)
    output = detector(images(1), truth.sizes)
    _, targets = detector.criterion(output, truth)
    inside = output.dense.inside(truth.sizes)
    cells = sum((32 // stride) ** 2 for stride in detector.spec.strides)
    assert inside.sum() == cells * detector.spec.priors_per_cell
    assert targets.weights[inside].any()
    assert not targets.weights[~inside].any()


def test_an_untrained_detector_finds_nothing_with_confidence(detector: Detector) -> None:
    detector.eval()
    found = detector.detect(detector(images()), torch.tensor([[64, 96], [64, 96]]))
    assert found.boxes.shape[:2] == found.scores.shape == found.labels.shape
    assert not (found.scores > 0.5).any()
    if detector.spec.family == "dense":
        assert found.counts.tolist() == [0, 0]


def test_detections_are_sorted_clipped_and_counted(detector: Detector) -> None:
    for name, parameter in detector.head.cls.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
    detector.eval()
    found = detector.detect(detector(images()), torch.tensor([[64, 96], [32, 48]]))
    assert 0 < found.counts.max() == found.scores.shape[1] <= 100
    assert (found.scores.diff(dim=1) <= 0).all()
    limits = torch.tensor([[96.0, 64, 96, 64], [48, 32, 48, 32]]).unsqueeze(1)
    assert (found.boxes >= 0).all()
    assert (found.boxes <= limits).all()


def test_losses_are_finite_in_bfloat16(detector: Detector) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        losses_of(detector, truth_of([[8.0, 8, 40, 40]], [[1.0, 2, 30, 50]]), images())


def test_a_query_detector_compiles_to_one_graph(query: Detector) -> None:
    query.eval()
    compiled = torch.compile(query, fullgraph=True, backend="eager")
    expected, actual = query(images()), compiled(images())
    torch.testing.assert_close(actual.queries.boxes, expected.queries.boxes)


def test_the_forward_pass_compiles_to_one_graph(dense: Detector) -> None:
    dense.eval()
    compiled = torch.compile(dense, fullgraph=True, backend="eager")
    expected, actual = dense(images()), compiled(images())
    torch.testing.assert_close(actual.dense.decoded(), expected.dense.decoded())


def test_training_the_losses_lowers_them(detector: Detector) -> None:
    truth, optimizer = truth_of([[8.0, 8, 40, 40]], [[1.0, 2, 30, 50]]), None
    optimizer = torch.optim.AdamW(detector.parameters(), lr=3e-3)
    history = []
    for _ in range(12):
        optimizer.zero_grad()
        history.append(sum(losses_of(detector, truth, images()).values()).item())
        optimizer.step()
    assert history[-1] < history[0]
