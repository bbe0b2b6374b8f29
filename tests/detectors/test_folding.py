import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from detdistill import detectors
from detdistill.detectors import Detector
from detdistill.structures import EVERYTHING, Reads

NAMES = ("gfl-quick-w8", "retinanet-quick-r50-w8", "fcos-quick-mobilenetv2-w32")


def with_statistics(name: str) -> Detector:
    """A detector whose BatchNorms do something."""
    torch.manual_seed(0)
    detector = detectors.build(name, ("thing", "other")).eval()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)
            nn.init.normal_(module.running_mean, std=0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return detector


def norms(detector: Detector) -> list[nn.Module]:
    return [m for m in detector.backbone.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_folded_detector_says_the_same(name: str) -> None:
    detector = with_statistics(name)
    images = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8)
    reads = EVERYTHING | Reads(backbone=True)
    wanted, found = (
        pytree.tree_leaves(d(images, None, reads)) for d in (detector, detectors.folded(detector))
    )
    maps = [pair for pair in zip(wanted, found, strict=True) if isinstance(pair[0], torch.Tensor)]
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-5 * float(a.abs().max())) for a, b in maps)


@pytest.mark.parametrize("name", NAMES)
def test_no_norm_is_left_in_the_backbone_and_the_given_detector_keeps_its_own(name: str) -> None:
    detector = with_statistics(name)
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    twin = detectors.folded(detector)
    assert norms(detector)
    assert not norms(twin)
    after = detector.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert twin.head is detector.head


def test_a_backbone_without_batchnorm_stays_as_it_is() -> None:
    detector = with_statistics("gfl-quick-swin-t-w16")
    assert detectors.folded(detector).backbone.state_dict().keys() == (
        detector.backbone.state_dict().keys()
    )
