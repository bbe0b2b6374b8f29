from __future__ import annotations

import dataclasses

import pytest
import torch
from tests import fakes
from tests.fakes import Step

from detdistill import boxes, masks
from detdistill.methods import UnsuitablePairError
from detdistill.methods.ld import LD


def made(**settings: object) -> LD:
    method = LD(**settings)  # type: ignore[arg-type]
    method.setup(fakes.spec(), fakes.spec())
    return method


def looped_region(step: Step, *, union: bool) -> torch.Tensor:
    """The valuable region, prior by prior and object by object."""
    predictions, truth = step.student.dense, step.truth
    priors, counts = predictions.flat_priors(), [len(p) for p in predictions.priors]
    inside = step.student.dense.inside(truth.sizes)
    region = torch.zeros(inside.shape)
    for image in range(len(region)):
        for box in truth.boxes[image][truth.valid[image]]:
            overlap = boxes.iou(priors, box)
            candidates, start = [], 0
            for count in counts:
                rows = [i for i in range(start, start + count) if inside[image, i]]
                far = [float((boxes.centers(priors[i]) - boxes.centers(box)).norm()) for i in rows]
                nearest = sorted(zip(far, rows, strict=True))[:9]
                candidates += [overlap[i] for _, i in nearest]
                start += count
            values = torch.stack(candidates)
            threshold = values.mean() + values.std()
            for i, prior in enumerate(priors):
                low, high = torch.maximum(prior[:2], box[:2]), torch.minimum(prior[2:], box[2:])
                shared = (high - low).clamp(min=0).prod()
                near = overlap[i] if union else shared / (prior[2:] - prior[:2]).prod()
                hull = torch.maximum(prior[2:], box[2:]) - torch.minimum(prior[:2], box[:2])
                offset = boxes.centers(prior) - boxes.centers(box)
                near = near - offset.square().sum() / hull.square().sum()
                if inside[image, i] and threshold / 4 <= near < threshold:
                    region[image, i] = max(region[image, i], overlap[i])
    return region


@pytest.mark.parametrize("nearness", ["covered", "iou"])
def test_the_valuable_region_is_that_of_a_loop(nearness: masks.RegionDistance) -> None:
    step = fakes.scene(seed=3).step
    region = made(nearness=nearness).valuable(step)
    wanted = looped_region(step, union=nearness == "iou")
    assert wanted.any()
    torch.testing.assert_close(region, wanted)


def test_an_image_without_objects_has_no_valuable_region() -> None:
    step = fakes.scene().step
    step.truth.valid[0] = False
    region = made().valuable(step)
    assert not region[0].any()
    assert region[1].any()
    empty = dataclasses.replace(
        step.truth,
        boxes=step.truth.boxes[:, :0],
        labels=step.truth.labels[:, :0],
        valid=step.truth.valid[:, :0],
    )
    assert not made().valuable(dataclasses.replace(step, truth=empty)).any()


def test_the_terms_are_those_of_a_loop_over_positives() -> None:
    step = fakes.scene(dtype=torch.float64).step
    student, teacher = step.student.dense, step.teacher.dense
    counts = [len(p) for p in student.priors]
    level = [i for i, count in enumerate(counts) for _ in range(count)]
    main, classes, positives = 0.0, [0.0] * len(counts), [0] * len(counts)
    for image in range(2):
        for i in torch.nonzero(step.targets.labels[image] < 3).flatten().tolist():
            said = [
                o.flat_boxes()[image, i].detach().double().view(4, -1) / 10
                for o in (student, teacher)
            ]
            p, q = (x.softmax(dim=-1) for x in said)
            scores = [o.flat_logits()[image, i].detach().double() for o in (student, teacher)]
            edges = 100 * (q * (q / p).log()).sum() / 5
            main += float(0.25 * scores[0].sigmoid().max() * edges / 4)
            p, q = (x.div(2).softmax(dim=-1) for x in scores)
            classes[level[i]] += float(4 * (q * (q / p).log()).sum() / 3)
            positives[level[i]] += 1
    terms = made()(step)
    wanted = sum(10 * c / n for c, n in zip(classes, positives, strict=True) if n)
    torch.testing.assert_close(float(terms["main"].detach()), main, rtol=1e-6, atol=0)
    torch.testing.assert_close(float(terms["cls"].detach()), wanted, rtol=1e-6, atol=0)


def test_heads_without_distributions_are_refused_with_a_remedy() -> None:
    with pytest.raises(UnsuitablePairError, match=r"5 bins and the student's 0: .*bckd"):
        LD().setup(fakes.spec(), fakes.spec("atss"))
