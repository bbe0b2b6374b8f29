"""What a dry run compares, of a detector that is made up."""

from __future__ import annotations

import torch
from tests import fakes

from detdistill import doctor


def test_an_encoders_memory_is_shown_level_by_level() -> None:
    facts = fakes.spec("query")
    neck = tuple(torch.randn(2, 8, 64 // stride, 64 // stride) for stride in facts.strides)
    output = fakes.fake_head(facts)(neck)
    memory = doctor._maps(output)["encoder memory"]
    assert [level.shape for level in memory] == [level.shape for level in neck]
    assert torch.equal(memory[1][0, :, 1, 2], output.encoder.memory[0, 64 + 4 + 2])


def test_versions_are_of_all_that_is_needed_and_of_the_extras() -> None:
    found = doctor.environment()
    assert found["torch"] == torch.__version__
    assert {"pillow", "hotcoco", "onnxruntime (optional)", "ray (optional)"} <= found.keys()
    assert not {"pytest (optional)", "mypy (optional)", "torch (optional)"} & found.keys()
