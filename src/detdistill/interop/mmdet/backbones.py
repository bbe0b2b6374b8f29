"""MMDetection's backbones as ours: ResNet, ResNeXt, MobileNetV2, Swin-T."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from torch import Tensor

from detdistill.detectors.backbones import Backbone
from detdistill.detectors.backbones.features import STANDARD_WIDTH
from detdistill.detectors.backbones.swin import DEPTHS, HEAD_WIDTH, WIDTH, WINDOW
from detdistill.interop.mmdet.section import UNREAD, Section
from detdistill.interop.transfer import Rules

MOBILENET_STAGES = {1: 1, 2: 2, 4: 3, 7: 4}
"""Our stages by the number of MMDetection's layer that ends one, counted from 0."""
MOBILENET_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
"""Of each layer."""
MERGED = 2
"""Rows and columns of cells that a Swin merges into one."""


def backbone(section: Section, first: int) -> Backbone:
    """A backbone of which the maps from number `first` on are read.

    Raises:
        UserError: it cannot be built here.
    """
    read = _READERS[section.of_type(*_READERS)]
    section.require("in_channels", [3], default=3)
    section.require("conv_cfg", [None])
    section.skip(*UNREAD)
    found = read(section, first)
    section.finish()
    return found


def _resnet(section: Section, first: int) -> Backbone:
    depth, read = section.get("depth"), tuple(section.get("out_indices", (0, 1, 2, 3)))
    name = f"resnet{depth}"
    if section.type == "ResNeXt":
        name = f"resnext{depth}_{section.get('groups', 1)}x{section.get('base_width', 4)}d"
    section.require("strides", [(1, 2, 2, 2)], default=(1, 2, 2, 2))
    section.require("dilations", [(1, 1, 1, 1)], default=(1, 1, 1, 1))
    section.require("num_stages", [4], default=4)
    _batch_norm(section)
    section.skip("zero_init_residual")
    found = Backbone(
        name=name,
        width=section.get("base_channels", STANDARD_WIDTH),
        stages=tuple(stage + 1 for stage in read[first:]),
        frozen_stages=max(section.get("frozen_stages", -1), 0),
        frozen_norm=section.get("norm_eval", True),
        style=section.require("style", ["pytorch", "caffe"], default="pytorch"),
    )
    section.require("stem_channels", [None, found.width])
    return found


def _mobilenet(section: Section, first: int) -> Backbone:
    usual = tuple(MOBILENET_STAGES)
    section.require("out_indices", [usual], default=usual)
    section.section("act_cfg", {"type": "ReLU6"}).of_type("ReLU6")
    _batch_norm(section)
    frozen = {-1: 0, **{layer + 1: stage for layer, stage in MOBILENET_STAGES.items()}}
    return Backbone(
        name="mobilenetv2",
        width=round(STANDARD_WIDTH * section.get("widen_factor", 1.0)),
        stages=tuple(MOBILENET_STAGES.values())[first:],
        frozen_stages=frozen[section.require("frozen_stages", list(frozen)[:-1], default=-1)],
        frozen_norm=section.get("norm_eval", False),
    )


def _swin(section: Section, first: int) -> Backbone:
    channels, read = section.get("embed_dims", WIDTH), section.get("out_indices", (0, 1, 2, 3))
    heads = tuple(channels // HEAD_WIDTH * 2**stage for stage in range(len(DEPTHS)))
    fixed = {
        "depths": (DEPTHS, (2, 2, 6, 2)),
        "num_heads": (heads, (3, 6, 12, 24)),
        "window_size": (WINDOW, 7),
        "mlp_ratio": (4, 4),
        "qkv_bias": (True, True),
        "qk_scale": (None, None),
        "patch_norm": (True, True),
        "use_abs_pos_embed": (False, False),
        "patch_size": (4, 4),
        "strides": ((4, 2, 2, 2), (4, 2, 2, 2)),
        "drop_rate": (0.0, 0.0),
        "attn_drop_rate": (0.0, 0.0),
    }
    for key, (ours, usual) in fixed.items():
        section.require(key, [ours], default=usual)
    section.section("act_cfg", {"type": "GELU"}).of_type("GELU")
    section.section("norm_cfg", {"type": "LN"}).of_type("LN")
    section.skip("pretrain_img_size", "convert_weights", "norm_eval")
    return Backbone(
        name="swin_t",
        width=channels * STANDARD_WIDTH // WIDTH,
        stages=tuple(stage + 1 for stage in read[first:]),
        frozen_stages=max(section.get("frozen_stages", -1), 0),
        drop_path=section.get("drop_path_rate", 0.1),
    )


_READERS: Mapping[str, Callable[[Section, int], Backbone]] = {
    "ResNet": _resnet,
    "ResNeXt": _resnet,
    "MobileNetV2": _mobilenet,
    "SwinTransformer": _swin,
}


def _batch_norm(section: Section) -> None:
    norm = section.section("norm_cfg", {"type": "BN"})
    norm.of_type("BN", "SyncBN")
    norm.require("eps", [1e-5], default=1e-5)
    norm.skip("requires_grad", "momentum")
    norm.finish()


def names(built: Backbone) -> Rules:
    """What MMDetection calls the weights of a backbone."""
    own = {"mobilenetv2": _mobilenet_names, "swin_t": _swin_names}.get(built.name)
    return tuple(own()) if own else ((r"backbone\.", r"backbone."),)


def _mobilenet_names() -> Iterator[tuple[str, str]]:
    """Torchvision counts all blocks, and has no name for the parts of one."""
    starts = accumulate(MOBILENET_BLOCKS, initial=1)
    yield from _with_norm(r"backbone\.conv1", "backbone.features.0.0", "backbone.features.0.1")
    for layer, (start, count) in enumerate(zip(starts, MOBILENET_BLOCKS, strict=False), start=1):
        for block in range(count):
            theirs = rf"backbone\.layer{layer}\.{block}"
            ours = f"backbone.features.{start + block}.conv"
            active = ["depthwise_conv"] if layer == 1 else ["expand_conv", "depthwise_conv"]
            for i, part in enumerate(active):
                yield from _with_norm(rf"{theirs}\.{part}", f"{ours}.{i}.0", f"{ours}.{i}.1")
            last = len(active)
            yield from _with_norm(rf"{theirs}\.linear_conv", f"{ours}.{last}", f"{ours}.{last + 1}")
    end = f"backbone.features.{1 + sum(MOBILENET_BLOCKS)}"
    yield from _with_norm(r"backbone\.conv2", f"{end}.0", f"{end}.1")


def _with_norm(theirs: str, conv: str, norm: str) -> Iterator[tuple[str, str]]:
    """A convolution and the norm behind it."""
    yield rf"{theirs}\.conv\.", f"{conv}."
    yield rf"{theirs}\.bn\.", f"{norm}."


def _swin_names() -> Iterator[tuple[str, str]]:
    """Torchvision counts stages and what stands between them in one row."""
    yield r"backbone\.patch_embed\.projection\.", "backbone.features.0.0."
    yield r"backbone\.patch_embed\.norm\.", "backbone.features.0.2."
    for stage in range(len(DEPTHS)):
        theirs = rf"backbone\.stages\.{stage}"
        ours = f"backbone.features.{2 * stage + 1}"
        yield rf"{theirs}\.blocks\.(\d+)\.attn\.w_msa\.", rf"{ours}.\1.attn."
        yield rf"{theirs}\.blocks\.(\d+)\.ffn\.layers\.0\.0\.", rf"{ours}.\1.mlp.0."
        yield rf"{theirs}\.blocks\.(\d+)\.ffn\.layers\.1\.", rf"{ours}.\1.mlp.3."
        yield rf"{theirs}\.blocks\.(\d+)\.", rf"{ours}.\1."
        yield rf"{theirs}\.downsample\.", f"backbone.features.{2 * stage + 2}."
        yield rf"backbone\.norm{stage}\.", f"backbone.norms.{stage + 1}."


def prepared(weights: Mapping[str, Tensor], built: Backbone) -> Mapping[str, Tensor]:
    """Tensors that can be copied as they are."""
    if built.name != "swin_t":
        return weights
    return {name: _prepared_swin(name, tensor) for name, tensor in weights.items()}


def _prepared_swin(name: str, tensor: Tensor) -> Tensor:
    """Torchvision keeps the numbers of window places in one row, and merges cells in its order."""
    if name.endswith(".w_msa.relative_position_index"):
        return tensor.flatten()
    if name.startswith("backbone.stages.") and ".downsample." in name:
        return _in_our_order(tensor)
    return tensor


def _in_our_order(merged: Tensor) -> Tensor:
    """(..., 4·C) of merged cells: theirs by channel, row and column, ours by column, row, channel.

    A tensor of another shape stays as it is, and will be refused where it does not fit.
    """
    cells = MERGED * MERGED
    if merged.ndim == 0 or merged.shape[-1] % cells:
        return merged
    return merged.unflatten(-1, (-1, MERGED, MERGED)).transpose(-1, -3).flatten(-3)
