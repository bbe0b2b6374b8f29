"""MobileNetV2 and Swin-T by MMDetection's names, of which no recorded numbers exist.

What the weights mean is derived here once more, from the papers and from how MMDetection stores
them, and compared with the maps of our backbones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.interop import foreign
from torch import Tensor
from torch.nn import functional as F

from detdistill.detectors.backbones import Features
from detdistill.errors import UserError
from detdistill.interop import mmdet
from detdistill.interop.mmdet import config as configs
from detdistill.interop.mmdet.convert import describe

State = dict[str, Tensor]
SWIN = {"type": "SwinTransformer", "embed_dims": 96, "out_indices": [1, 2, 3], "drop_path_rate": 0}
SMALL_SWIN = {**SWIN, "embed_dims": 48, "num_heads": [1, 2, 4, 8]}
MOBILE = {"type": "MobileNetV2", "widen_factor": 0.25, "norm_eval": True}


def text(backbone: dict[str, Any], *, start_level: int = 1) -> str:
    """The config of a GFL with another backbone."""
    config = configs.parse(foreign.published()["meta"]["cfg"], "the config")
    model = config["model"]
    neck = {**model["neck"], "start_level": start_level}
    model = {**model, "backbone": backbone, "neck": neck}
    return "\n".join(f"{key} = {value!r}" for key, value in {**config, "model": model}.items())


def imported(folder: Path, state: State, config: str) -> Features:
    """The backbone of a file that holds nothing else."""
    state = {f"backbone.{name}": tensor for name, tensor in state.items()}
    meta = {"cfg": config, "dataset_meta": {"classes": foreign.CLASSES}}
    torch.save({"meta": meta, "state_dict": state}, folder / "a.pth")
    found = mmdet.load(folder / "a.pth", partial=True)
    assert found.report.unexpected == ()
    assert len(found.report.loaded) == len(state)
    assert not [name for name in found.report.missing if name.startswith("backbone.")]
    return found.detector.backbone.eval()


def normed(state: State, name: str, channels: int, *, statistics: bool) -> None:
    state[f"{name}.weight"] = torch.rand(channels) + 0.5
    state[f"{name}.bias"] = torch.randn(channels) * 0.1
    if statistics:
        state[f"{name}.running_mean"] = torch.randn(channels) * 0.1
        state[f"{name}.running_var"] = torch.rand(channels) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(3)


def linear(state: State, name: str, outputs: int, *inputs: int, bias: bool = True) -> None:
    fan_in = torch.Size(inputs).numel()
    state[f"{name}.weight"] = torch.randn(outputs, *inputs) / fan_in**0.5
    if bias:
        state[f"{name}.bias"] = torch.randn(outputs) * 0.1


# MobileNetV2


def mobile_blocks() -> Iterator[tuple[str, int, int, int, int]]:
    """Name, channels in, channels out, expansion and stride of each block at quarter width."""
    channels = 8
    rows = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1)]
    rows += [(6, 160, 3, 2), (6, 320, 1, 1)]
    for layer, (expand, full, count, stride) in enumerate(rows, start=1):
        width = max(8, int(full / 4 + 4) // 8 * 8)
        for block in range(count):
            yield f"layer{layer}.{block}", channels, width, expand, stride if block == 0 else 1
            channels = width


def mobile_state() -> State:
    state: State = {}

    def unit(name: str, outputs: int, inputs: int, kernel: int) -> None:
        linear(state, f"{name}.conv", outputs, inputs, kernel, kernel, bias=False)
        normed(state, f"{name}.bn", outputs, statistics=True)

    unit("conv1", 8, 3, 3)
    for name, inputs, outputs, expand, _ in mobile_blocks():
        inner = inputs * expand
        if expand > 1:
            unit(f"{name}.expand_conv", inner, inputs, 1)
        unit(f"{name}.depthwise_conv", inner, 1, 3)
        unit(f"{name}.linear_conv", outputs, inner, 1)
    unit("conv2", 1280, outputs, 1)
    return state


def mobile_maps(state: State, x: Tensor) -> list[Tensor]:
    def unit(name: str, x: Tensor, *, stride: int = 1, active: bool = True) -> Tensor:
        kernel = state[f"{name}.conv.weight"]
        groups = x.shape[1] if kernel.shape[1] == 1 and x.shape[1] > 1 else 1
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)
        mean, variance = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
        x = F.batch_norm(x, mean, variance, state[f"{name}.bn.weight"], state[f"{name}.bn.bias"])
        return x.clamp(0, 6) if active else x

    x, maps = unit("conv1", x, stride=2), {}
    for name, inputs, outputs, expand, stride in mobile_blocks():
        inner = unit(f"{name}.expand_conv", x) if expand > 1 else x
        inner = unit(f"{name}.depthwise_conv", inner, stride=stride)
        inner = unit(f"{name}.linear_conv", inner, active=False)
        x = x + inner if stride == 1 and inputs == outputs else inner
        maps[name.split(".")[0]] = x
    return [maps["layer2"], maps["layer3"], maps["layer5"], unit("conv2", x)]


def test_a_mobilenet_computes_what_its_weights_mean(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state, images = mobile_state(), torch.randn(1, 3, 64, 96)
    ours = imported(tmp_path, state, text(MOBILE))(images)
    theirs = mobile_maps(state, images)[1:]
    assert [level.shape for level in ours] == [level.shape for level in theirs]
    for mine, expected in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, expected, rtol=1e-4, atol=1e-4)
        assert expected.std() > 1e-3


# Swin-T

DEPTHS, CHANNELS, WINDOW = (2, 2, 6, 2), 48, 7


def swin_state() -> State:
    state: State = {}
    linear(state, "patch_embed.projection", CHANNELS, 3, 4, 4)
    normed(state, "patch_embed.norm", CHANNELS, statistics=False)
    for stage, depth in enumerate(DEPTHS):
        width = CHANNELS * 2**stage
        for block in range(depth):
            name = f"stages.{stage}.blocks.{block}"
            for norm in ("norm1", "norm2"):
                normed(state, f"{name}.{norm}", width, statistics=False)
            linear(state, f"{name}.attn.w_msa.qkv", 3 * width, width)
            linear(state, f"{name}.attn.w_msa.proj", width, width)
            table = torch.randn((2 * WINDOW - 1) ** 2, 2**stage)
            state[f"{name}.attn.w_msa.relative_position_bias_table"] = table
            state[f"{name}.attn.w_msa.relative_position_index"] = places()
            linear(state, f"{name}.ffn.layers.0.0", 4 * width, width)
            linear(state, f"{name}.ffn.layers.1", width, 4 * width)
        if stage < len(DEPTHS) - 1:
            normed(state, f"stages.{stage}.downsample.norm", 4 * width, statistics=False)
            linear(state, f"stages.{stage}.downsample.reduction", 2 * width, 4 * width, bias=False)
        if stage:
            normed(state, f"norm{stage}", width, statistics=False)
    return state


def places() -> Tensor:
    """(49, 49) which row of the table two places of a window look up, by their distance."""
    y, x = (grid.flatten() for grid in torch.meshgrid(*2 * [torch.arange(WINDOW)], indexing="ij"))
    down, across = (side[:, None] - side[None, :] + WINDOW - 1 for side in (y, x))
    return down * (2 * WINDOW - 1) + across


def norm(state: State, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def full(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def attention(state: State, name: str, x: Tensor, *, shift: int) -> Tensor:
    """(H, W, C), whose windows fit: every place attends to those of its window and region."""
    height, width, channels = x.shape
    heads = state[f"{name}.relative_position_bias_table"].shape[1]
    table = state[f"{name}.relative_position_bias_table"]
    x = x.roll((-shift, -shift), (0, 1))
    region = [
        torch.tensor([0 if i < n - WINDOW else 1 if i < n - shift else 2 for i in range(n)])
        for n in (height, width)
    ]
    out = torch.zeros_like(x)
    for top in range(0, height, WINDOW):
        for left in range(0, width, WINDOW):
            rows, columns = slice(top, top + WINDOW), slice(left, left + WINDOW)
            kind = (region[0][rows, None] * 3 + region[1][None, columns]).flatten()
            cells = full(state, f"{name}.qkv", x[rows, columns].reshape(-1, channels))
            query, key, value = cells.view(WINDOW**2, 3, heads, -1).permute(1, 2, 0, 3)
            scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
            scores = scores + table[places()].permute(2, 0, 1)
            if shift:
                scores = scores.masked_fill(kind[:, None] != kind[None, :], -torch.inf)
            seen = (scores.softmax(-1) @ value).transpose(0, 1).reshape(WINDOW, WINDOW, channels)
            out[rows, columns] = full(state, f"{name}.proj", seen)
    return out.roll((shift, shift), (0, 1))


def swin_maps(state: State, images: Tensor) -> list[Tensor]:
    """Maps (1, C, H, W) of stages 2 to 4."""
    kernel, bias = (state[f"patch_embed.projection.{part}"] for part in ("weight", "bias"))
    x = norm(state, "patch_embed.norm", F.conv2d(images, kernel, bias, stride=4)[0].movedim(0, -1))
    maps = []
    for stage, depth in enumerate(DEPTHS):
        for block in range(depth):
            name = f"stages.{stage}.blocks.{block}"
            height, width = x.shape[:2]
            inner = norm(state, f"{name}.norm1", x)
            inner = F.pad(inner, (0, 0, 0, -width % WINDOW, 0, -height % WINDOW))
            shift = WINDOW // 2 if block % 2 else 0
            inner = attention(state, f"{name}.attn.w_msa", inner, shift=shift)
            x = x + inner[:height, :width]
            inner = full(state, f"{name}.ffn.layers.0.0", norm(state, f"{name}.norm2", x))
            x = x + full(state, f"{name}.ffn.layers.1", F.gelu(inner))
        if stage:
            maps.append(norm(state, f"norm{stage}", x).movedim(-1, 0).unsqueeze(0))
        if stage < len(DEPTHS) - 1:
            cells = F.unfold(x.movedim(-1, 0).unsqueeze(0), 2, stride=2)[0].T
            cells = cells.view(x.shape[0] // 2, x.shape[1] // 2, -1)
            cells = norm(state, f"stages.{stage}.downsample.norm", cells)
            x = full(state, f"stages.{stage}.downsample.reduction", cells)
    return maps


def test_a_swin_computes_what_its_weights_mean(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state, images = swin_state(), torch.randn(1, 3, 256, 288)
    ours = imported(tmp_path, state, text(SMALL_SWIN, start_level=0))(images)
    theirs = swin_maps(state, images)
    assert [level.shape for level in ours] == [level.shape for level in theirs]
    for mine, expected in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, expected, rtol=1e-3, atol=1e-3)


def test_configs_say_which_stages_are_read_and_frozen() -> None:
    swin = {**SWIN, "frozen_stages": 2, "drop_path_rate": 0.2}
    config = configs.parse(text(swin, start_level=0), "it")
    found = describe(config, foreign.CLASSES).backbone
    assert (found.name, found.width, found.stages) == ("swin_t", 64, (2, 3, 4))
    assert (found.frozen_stages, found.drop_path) == (2, 0.2)
    config = configs.parse(text({**MOBILE, "frozen_stages": 3}), "it")
    found = describe(config, foreign.CLASSES).backbone
    assert (found.name, found.width, found.stages) == ("mobilenetv2", 16, (2, 3, 4))
    assert (found.frozen_stages, found.frozen_norm) == (2, True)


@pytest.mark.parametrize(
    ("backbone", "complaint"),
    [
        ({**SWIN, "window_size": 12}, "window_size = 12"),
        ({**SWIN, "depths": [2, 2, 18, 2]}, "depths"),
        ({**SWIN, "use_abs_pos_embed": True}, "use_abs_pos_embed"),
        ({**MOBILE, "out_indices": [2, 4, 6]}, "out_indices"),
        ({**MOBILE, "act_cfg": {"type": "HSwish"}}, "ReLU6"),
        ({"type": "PyramidVisionTransformerV2"}, "PyramidVisionTransformerV2"),
    ],
)
def test_what_cannot_be_built_is_named(backbone: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        describe(configs.parse(text(backbone), "it"), foreign.CLASSES)
