from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests import fakes

from detdistill import boxes, instances, losses
from detdistill.methods.rm import RM
from detdistill.structures import Step, Targets, Truth


def made(facts: fakes.Spec | None = None, **settings: object) -> RM:
    method = RM(**settings)  # type: ignore[arg-type]
    method.setup(facts or fakes.spec(), facts or fakes.spec())
    return method


def share(values: np.ndarray) -> np.ndarray:
    return np.exp(values) / np.exp(values).sum()


def oracle(step: Step, student: np.ndarray, teacher: np.ndarray, *, ordered: bool = True) -> float:
    """Object by object; qualities are (B, N)."""
    total, truth, images = 0.0, step.truth, len(student)
    for image in range(images):
        labels, near = step.targets.labels[image].numpy(), step.targets.boxes[image]
        for slot in torch.where(truth.valid[image])[0]:
            mine = (near == truth.boxes[image, slot]).all(dim=-1).numpy() & (labels < 3)
            p, q = (x[image][mine] for x in (student, teacher))
            p, q = (share(x if ordered else np.sort(x)) for x in (p, q))
            total += (q * np.log(q / p)).sum() / int(truth.valid[image].sum())
    return total / images


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", ["gfl", "retinanet", "fcos"])
def test_it_compares_the_positives_of_each_object_in_turn(kind: fakes.Kind, ordered: bool) -> None:
    facts = fakes.spec(kind)
    step = fakes.scene(facts, dtype=torch.float64).step
    label = step.targets.labels.clamp(max=2).unsqueeze(-1)
    said = [output.dense for output in (step.student, step.teacher)]
    scores = [d.flat_logits().detach().sigmoid().gather(-1, label).squeeze(-1) for d in said]
    overlaps = [boxes.iou(d.decoded().detach(), step.targets.boxes).clamp(0, 1) for d in said]
    terms = made(facts, ordered=ordered)(step)
    for name, qualities in (("cls", scores), ("box", overlaps)):
        wanted = 4 * oracle(step, *(q.numpy() for q in qualities), ordered=ordered)
        assert float(terms[name].detach()) == pytest.approx(wanted, rel=1e-9)


def test_raising_all_scores_of_an_object_alike_changes_no_ranking() -> None:
    owner = torch.tensor([[0, 0, 1, 1, 2]])
    scores = torch.rand(1, 5)
    raised = scores + torch.tensor([[0.2, 0.2, 0.0, 0.0, 0.0]])
    before, after = (losses.log_softmax_within(x, owner, 2) for x in (scores, raised))
    torch.testing.assert_close(before, after)
    torch.testing.assert_close(before[0, :2], scores[0, :2].log_softmax(dim=0))


def test_only_the_candidates_of_the_assignment_are_looked_at() -> None:
    step = fakes.scene().step
    rows = torch.where(step.targets.labels < 3)[1].view(2, -1)
    few = dataclasses.replace(step, targets=dataclasses.replace(step.targets, rows=rows))
    method = made()
    assert all(torch.allclose(method(few)[name], value) for name, value in method(step).items())


def test_an_object_owns_the_priors_that_have_its_box_and_its_class() -> None:
    corners = torch.tensor([[[0.0, 0, 8, 8], [0, 0, 8, 8], [4, 4, 9, 9]]])
    real = torch.tensor([[True, True, False]])
    truth = Truth(
        boxes=corners,
        labels=torch.tensor([[1, 2, 0]]),
        valid=real,
        crowd=~real,
        sizes=torch.full((1, 2), 16),
    )
    targets = Targets(
        labels=torch.tensor([[2, 1, 0, 5]]),
        boxes=torch.stack([corners[0, 1], corners[0, 0], corners[0, 2], torch.zeros(4)])[None],
        weights=torch.ones(1, 4),
        positives=torch.tensor(3.0),
    )
    assert instances.owners(targets, truth).tolist() == [[1, 0, 3, 3]]
    none = dataclasses.replace(
        truth, **{k: getattr(truth, k)[:, :0] for k in ("boxes", "labels", "valid", "crowd")}
    )
    assert instances.owners(targets, none).tolist() == [[0, 0, 0, 0]]
