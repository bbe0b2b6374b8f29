"""Deformable DETR against the whole model of transformers, and its matching against a loop."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch
from tests import extras
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou
from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection

from detdistill import detectors
from detdistill.boxes import from_centers
from detdistill.detectors.backbones import Backbone
from detdistill.detectors.deformable_detr import DeformableDetr, losses
from detdistill.detectors.matching import match
from detdistill.detectors.query_architecture import QueryArchitecture
from detdistill.errors import MissingExtraError
from detdistill.levels import within
from detdistill.structures import EVERYTHING, QueryPredictions, Reads, Truth, local_mean

CLASSES = ("circle", "square", "star")
ENCODER = EVERYTHING | Reads(encoder=True)
SIZES = torch.tensor([[64, 96], [40, 70]])

SMALL = QueryArchitecture(
    family="deformable_detr",
    backbone=Backbone(name="resnet18", width=4, stages=(2, 3, 4)),
    classes=CLASSES,
    neck_channels=32,
    norm_groups=32,
    neck_bias=True,
    heads=4,
    points=2,
    hidden_channels=48,
    encoder_layers=2,
    decoder_layers=3,
    queries=7,
)


def build(**changes: Any) -> DeformableDetr:
    """A small detector whose every weight is random, so that nothing is there for nothing."""
    torch.manual_seed(0)
    detector = DeformableDetr(replace(SMALL, **changes)).eval()
    for parameter in detector.parameters():
        nn.init.normal_(parameter, std=0.2)
    return detector


def pictures() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=generator)


def truth() -> Truth:
    """Two objects and a crowd region between them; one object; the rest is padding."""
    boxes = torch.tensor([[4.0, 6, 40, 50], [0, 0, 90, 60], [50, 10, 80, 40]])
    return Truth(
        boxes=torch.stack([boxes, boxes * 0.7]),
        labels=torch.tensor([[2, 0, 1], [1, 0, 0]]),
        valid=torch.tensor([[True, False, True], [True, False, False]]),
        crowd=torch.tensor([[False, True, False], [False, False, False]]),
        sizes=SIZES,
    )


class TheirBackbone(nn.Module):
    """Ours, as the model of transformers calls it."""

    def __init__(self, detector: DeformableDetr) -> None:
        super().__init__()
        self.ours = (detector,)

    def forward(self, images: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        maps = self.ours[0].backbone(images)
        shrink = nn.functional.interpolate
        return [(m, shrink(mask[None].float(), m.shape[-2:])[0].bool()) for m in maps]


def theirs(detector: DeformableDetr) -> DeformableDetrForObjectDetection:
    """The model of transformers with our weights."""
    wanted = detector.architecture
    config = DeformableDetrConfig(
        backbone="resnet18",
        num_labels=len(CLASSES),
        num_queries=wanted.queries,
        d_model=wanted.neck_channels,
        encoder_layers=wanted.encoder_layers,
        decoder_layers=wanted.decoder_layers,
        encoder_attention_heads=wanted.heads,
        decoder_attention_heads=wanted.heads,
        encoder_n_points=wanted.points,
        decoder_n_points=wanted.points,
        encoder_ffn_dim=wanted.hidden_channels,
        decoder_ffn_dim=wanted.hidden_channels,
        with_box_refine=wanted.refine,
    )
    model = DeformableDetrForObjectDetection(config).eval()
    neck, encoder, head = detector.neck, detector.encoder, detector.head
    for target, source in zip(model.model.input_proj, (*neck.lateral, *neck.extra), strict=True):
        shape = source.conv.weight.shape
        target[0] = nn.Conv2d(shape[1], shape[0], shape[2], source.conv.stride, shape[2] // 2)
        target.load_state_dict(
            dict(zip(target.state_dict(), source.state_dict().values(), strict=True))
        )
    model.model.backbone = TheirBackbone(detector)
    model.model.level_embed.data.copy_(encoder.level_embed)
    model.model.encoder.layers.load_state_dict(encoder.layers.state_dict())
    model.model.decoder.layers.load_state_dict(head.layers.state_dict())
    model.model.query_position_embeddings.load_state_dict(head.queries.state_dict())
    model.model.reference_points.load_state_dict(head.reference_points.state_dict())
    for stage in range(wanted.decoder_layers):
        branch = stage if wanted.refine else 0
        model.class_embed[stage].load_state_dict(head.cls[branch].state_dict())
        model.bbox_embed[stage].load_state_dict(head.box[branch].state_dict())
        if wanted.refine:
            model.model.decoder.bbox_embed[stage].load_state_dict(head.box[branch].state_dict())
    return model


@pytest.mark.parametrize("refine", [False, True])
@torch.no_grad()
def test_it_says_what_the_model_of_transformers_says(refine: bool) -> None:
    detector = build(refine=refine)
    mask = torch.zeros(2, 64, 96, dtype=torch.long)
    for image, (height, width) in zip(mask, SIZES.tolist(), strict=True):
        image[:height, :width] = 1
    wanted = theirs(detector)(detector.normalise(pictures(), SIZES), pixel_mask=mask)
    found = detector(pictures(), SIZES, ENCODER)
    torch.testing.assert_close(found.encoder.memory, wanted.encoder_last_hidden_state)
    torch.testing.assert_close(found.queries.logits[-1], wanted.logits)
    scale = SIZES.flip(-1).repeat(1, 2).unsqueeze(1)
    torch.testing.assert_close(found.queries.boxes[-1], from_centers(wanted.pred_boxes) * scale)
    for stage, hidden in enumerate(wanted.intermediate_hidden_states.unbind(1)):
        branch = detector.head.cls[stage if refine else 0]
        torch.testing.assert_close(found.queries.logits[stage], branch(hidden))


def test_gradients_pass_through_a_frozen_decoder_to_the_memory() -> None:
    detector = build().requires_grad_(requires_grad=False)
    trace = detector(pictures(), SIZES, ENCODER).encoder
    trace.memory.requires_grad_()
    resumed = detector.head.resume(trace)
    (gradient,) = torch.autograd.grad(resumed.logits[0].sum(), trace.memory, retain_graph=True)
    assert gradient.abs().max() > 0
    (gradient,) = torch.autograd.grad(resumed.boxes[-1].sum(), trace.memory)
    assert gradient.abs().max() > 0
    assert all(parameter.grad is None for parameter in detector.parameters())


@pytest.mark.parametrize(
    ("reads", "runs"),
    [
        (Reads(), []),
        (Reads(encoder=True), ["encoder"]),
        (Reads(predictions=True), ["encoder", "decoder"]),
    ],
)
def test_only_what_is_read_is_run(reads: Reads, runs: list[str]) -> None:
    detector, ran = build(), []
    detector.encoder.layers[0].register_forward_hook(lambda *_: ran.append("encoder"))
    detector.head.layers[0].register_forward_hook(lambda *_: ran.append("decoder"))
    detector(pictures(), SIZES, reads)
    assert ran == runs


def test_without_refinement_one_branch_speaks_for_all_stages() -> None:
    assert len(build(refine=False).head.cls) == len(build(refine=False).head.box) == 1
    assert len(build(refine=True).head.cls) == len(build(refine=True).head.box) == 3


@torch.no_grad()
def test_the_padding_of_other_images_changes_no_prediction() -> None:
    detector = build(backbone=replace(SMALL.backbone, stages=(2, 3)), extra_levels=0)
    padded = (torch.randn(1, 32, 8, 12), torch.randn(1, 32, 4, 6))
    cropped = (padded[0][..., :4, :8], padded[1][..., :2, :4])
    sizes = torch.tensor([[32, 64]])
    beside = detector.encoder(padded, within(sizes, (64, 96)), sizes)
    alone = detector.encoder(cropped, within(sizes, (32, 64)), sizes)
    torch.testing.assert_close(beside.valid_ratios, torch.tensor([[[2 / 3, 0.5], [2 / 3, 0.5]]]))
    torch.testing.assert_close(beside.memory[~beside.padding], alone.memory[0])
    found, wanted = detector.head.resume(beside), detector.head.resume(alone)
    torch.testing.assert_close(found.boxes, wanted.boxes)
    torch.testing.assert_close(found.logits, wanted.logits)


def cost(predictions: QueryPredictions, stage: int, image: int) -> Tensor:
    """(Q, G) of the real objects, as the paper writes it."""
    objects = truth().boxes[image][truth().valid[image]]
    labels = truth().labels[image][truth().valid[image]]
    height, width = SIZES[image].tolist()
    scale = torch.tensor([width, height, width, height])
    p = predictions.logits[stage][image].sigmoid()
    found = predictions.boxes[stage][image]
    positive = 0.25 * (1 - p) ** 2 * -p.log()
    negative = 0.75 * p**2 * -(1 - p).log()
    distance = torch.stack(
        [(centred(found / scale) - centred(o / scale)).abs().sum(dim=-1) for o in objects], dim=1
    )
    overlap = generalized_box_iou(found, objects)
    return 2 * (positive - negative)[:, labels] + 5 * distance - 2 * overlap


def centred(boxes: Tensor) -> Tensor:
    low, high = boxes.chunk(2, dim=-1)
    return torch.cat([(low + high) / 2, high - low], dim=-1)


@torch.no_grad()
def test_matching_is_the_cheapest_of_all_pairings() -> None:
    predictions = build()(pictures(), SIZES).queries
    found = match(predictions, truth())
    for stage in range(3):
        for image in range(2):
            paid = cost(predictions, stage, image)
            count = paid.shape[1]
            best = min(
                permutations(range(paid.shape[0]), count),
                key=lambda queries: sum(paid[q, g].item() for g, q in enumerate(queries)),
            )
            wanted = torch.full((7,), len(CLASSES))
            valid = truth().valid[image]
            wanted[list(best)] = truth().labels[image][valid]
            assert found.labels[stage, image].tolist() == wanted.tolist()
            chosen = found.boxes[stage, image, list(best)]
            assert torch.equal(chosen, truth().boxes[image][valid])
            assert found.boxes[stage, image][wanted == len(CLASSES)].abs().max() == 0


@torch.no_grad()
def test_losses_are_those_of_a_loop() -> None:
    predictions = build()(pictures(), SIZES).queries
    matches = match(predictions, truth())
    total = {"cls": 0.0, "box": 0.0, "giou": 0.0}
    for stage in range(3):
        for image in range(2):
            height, width = SIZES[image].tolist()
            scale = torch.tensor([width, height, width, height])
            for query, label in enumerate(matches.labels[stage, image].tolist()):
                p = predictions.logits[stage][image, query].sigmoid()
                for number, share in enumerate(p.tolist()):
                    right = share if number == label else 1 - share
                    weight = 0.25 if number == label else 0.75
                    total["cls"] += -2 * weight * (1 - right) ** 2 * torch.tensor(right).log()
                if label == len(CLASSES):
                    continue
                mine = predictions.boxes[stage][image, query]
                wanted = matches.boxes[stage, image, query]
                total["box"] += 5 * (centred(mine / scale) - centred(wanted / scale)).abs().sum()
                total["giou"] += 2 * (1 - generalized_box_iou(mine[None], wanted[None]).sum())
    found = losses(predictions, matches, torch.tensor(3.0), truth())
    for name, wanted in total.items():
        torch.testing.assert_close(found[name], torch.as_tensor(wanted / 3), rtol=1e-4, atol=1e-4)


def test_objects_that_are_more_than_the_queries_go_without() -> None:
    many = Truth(
        boxes=torch.rand(1, 20, 4).sort(dim=-1).values * 64,
        labels=torch.zeros(1, 20, dtype=torch.long),
        valid=torch.ones(1, 20, dtype=torch.bool),
        crowd=torch.zeros(1, 20, dtype=torch.bool),
        sizes=SIZES[:1],
    )
    detector = build()
    _, targets = detector.criterion(detector(pictures()[:1], SIZES[:1]), many)
    assert targets.matches is not None
    assert (targets.matches.labels == 0).all()
    assert targets.positives == 7


def test_predictions_that_are_no_numbers_are_matched_all_the_same() -> None:
    predictions = build()(pictures(), SIZES).queries
    broken = QueryPredictions(
        logits=tuple(level * torch.nan for level in predictions.logits), boxes=predictions.boxes
    )
    assert (
        (match(broken, truth()).labels < len(CLASSES)).sum(dim=-1) == truth().valid.sum(1)
    ).all()


def test_the_targets_of_a_step_are_those_of_the_last_stage() -> None:
    detector, means = build(), []
    output = detector(pictures(), SIZES)

    def mean(value: Tensor) -> Tensor:
        means.append(value)
        return local_mean(value) * 2

    _, targets = detector.criterion(output, truth(), mean)
    assert targets.matches is not None
    assert torch.equal(targets.labels, targets.matches.labels[-1])
    assert torch.equal(targets.boxes, targets.matches.boxes[-1])
    assert [value.item() for value in means] == [3]
    assert targets.positives == 6


def test_detections_are_the_best_pairs_of_query_and_class() -> None:
    detector = build(per_image=5)
    output = detector(pictures(), SIZES)
    found = detector.detect(output, SIZES)
    scores = output.queries.logits[-1].sigmoid()
    assert found.counts.tolist() == [5, 5]
    for image in range(2):
        wanted = sorted(
            ((scores[image, q, k].item(), q, k) for q in range(7) for k in range(3)), reverse=True
        )[:5]
        assert found.labels[image].tolist() == [k for _, _, k in wanted]
        limit = SIZES[image].flip(0).repeat(2)
        for box, (_, query, _) in zip(found.boxes[image], wanted, strict=True):
            assert torch.equal(box, output.queries.boxes[-1][image, query].clamp(min=0).min(limit))


@pytest.mark.parametrize("package", ["transformers", "scipy.optimize"])
def test_without_the_extra_it_says_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    extras.without(package, monkeypatch)
    with pytest.raises(MissingExtraError, match=r"pip install '.\[detr\]'") as refusal:
        detectors.build("deformable_detr-quick-w8", CLASSES)
    assert package in str(refusal.value)
