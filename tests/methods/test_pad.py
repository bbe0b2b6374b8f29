from __future__ import annotations

import numpy as np
import pytest
import torch
from tests import fakes

from detdistill.errors import UserError
from detdistill.methods import combine
from detdistill.methods.pad import PAD


def made(**settings: object) -> PAD:
    torch.manual_seed(0)
    method = PAD(**settings)  # type: ignore[arg-type]
    method.setup(fakes.spec(), fakes.spec())
    method.double()
    for parameter in method.predictors.parameters():
        torch.nn.init.normal_(parameter)
    return method


def lost(step: fakes.Step, level: int, of: str) -> np.ndarray:
    """(B, H, W) what the wrapped method says of each cell."""
    if of == "fitnet":
        ours, theirs = (o.neck[level].detach().numpy() for o in (step.student, step.teacher))
        return ((ours - theirs) ** 2).mean(axis=1) / 2
    logits = [o.dense.logits[level].detach().numpy() for o in (step.student, step.teacher)]
    p, q = (1 / (1 + np.exp(-x)) for x in logits)
    focal = (np.abs(p - q) * -(q * np.log(p) + (1 - q) * np.log(1 - p))).sum(axis=1)
    start = sum(len(priors) for priors in step.student.dense.priors[:level])
    weights = step.targets.weights[:, start : start + focal[0].size].numpy()
    return focal * weights.reshape(focal.shape)


@pytest.mark.parametrize("of", ["fitnet", "kd"])
def test_each_cell_counts_by_its_predicted_variance(of: str) -> None:
    step, method = fakes.scene(dtype=torch.float64).step, made(of=of)
    for i, term in enumerate(method(step).values()):
        layer, neck = method.predictors[i], step.student.neck[i].detach().numpy()
        raw = np.einsum("c,bchw->bhw", layer.weight.detach().numpy().ravel(), neck)  # type: ignore[operator, union-attr]
        variance = 0.01 + 0.99 * np.exp(raw + float(layer.bias.detach()))  # type: ignore[operator, union-attr]
        wanted = 3 / 3 * np.mean(lost(step, i, of) / variance + np.log(variance))
        assert float(term.detach()) == pytest.approx(wanted, rel=1e-9)


def test_before_anything_is_learnt_it_is_the_wrapped_method() -> None:
    step = fakes.scene().step
    (pad,), (fitnet,) = (
        combine.parse(name, {name: {"weight": 2.0}}).values() for name in ("pad", "fitnet")
    )
    for method in (pad, fitnet):
        method.setup(fakes.spec(), fakes.spec())
    for name, term in fitnet(step).items():
        torch.testing.assert_close(pad(step)[name], term)


def test_it_sums_over_the_priors_of_a_cell() -> None:
    facts = fakes.spec("retinanet")
    step, method = fakes.scene(facts).step, PAD(of="kd")
    method.setup(facts, facts)
    shapes = [level.shape[-2:] for level in step.student.neck]
    assert [level.shape[1:] for level in method.inner.cell_losses(step)] == shapes


def test_it_learns_to_expect_what_is_lost_there() -> None:
    step, method = fakes.scene().step, PAD()
    method.setup(fakes.spec(), fakes.spec())
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05)
    before = sum(float(term.detach()) for term in method(step).values())
    for _ in range(20):
        optimizer.zero_grad()
        torch.stack(list(method(step).values())).sum().backward(retain_graph=True)
        optimizer.step()
    assert sum(float(term.detach()) for term in method(step).values()) < before


@pytest.mark.parametrize("of", ["ld", "defeat", "fgfi"])
def test_a_method_that_says_nothing_of_cells_cannot_be_wrapped(of: str) -> None:
    with pytest.raises(UserError, match=f"pad weighs what each cell loses, which {of} does"):
        PAD(of=of)
