"""MMDetection's Deformable DETR as ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from detdistill.detectors.query_architecture import QueryArchitecture
from detdistill.interop.mmdet import backbones, parts
from detdistill.interop.mmdet.config import Config
from detdistill.interop.mmdet.section import UNREAD, Section
from detdistill.interop.transfer import Rules

WIDTH = 256
ENCODER_NORMS = ("self_attn_layer_norm", "final_layer_norm")
DECODER_NORMS = ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm")
LOSSES = ("loss_cls", "loss_bbox", "loss_iou", "sync_cls_avg_factor")
TO_3X = (
    (r"bbox_head\.transformer\.(encoder|decoder|level_embed)", r"\1"),
    (r"bbox_head\.transformer\.reference_points\.", r"reference_points_fc."),
    (r"bbox_head\.query_embedding\.", r"query_embedding."),
    (r"level_embeds$", r"level_embed"),
    (r"(encoder\.layers\.\d+)\.attentions\.0\.", r"\1.self_attn."),
    (r"(decoder\.layers\.\d+)\.attentions\.0\.", r"\1.self_attn."),
    (r"(decoder\.layers\.\d+)\.attentions\.1\.", r"\1.cross_attn."),
    (r"((?:en|de)coder\.layers\.\d+)\.ffns\.0\.", r"\1.ffn."),
)
"""Names of 2.x and what became of them."""


def architecture(config: Config, model: Section, classes: tuple[str, ...]) -> QueryArchitecture:
    """The detector that a config's model describes.

    Raises:
        UserError: something in it cannot be built here.
    """
    neck, head = model.section("neck"), model.section("bbox_head")
    encoder, decoder = (model.section(part).section("layer_cfg") for part in ("encoder", "decoder"))
    backbone = backbones.backbone(model.section("backbone"), first=0)
    channels = _projection(neck)
    looking = _attention(encoder.section("self_attn_cfg"), channels)
    found = QueryArchitecture(
        family="deformable_detr",
        backbone=backbone,
        classes=classes,
        neck_channels=channels,
        extra_levels=neck.get("num_outs") - len(backbone.stages),
        norm_groups=neck.section("norm_cfg").get("num_groups"),
        heads=looking[0],
        points=looking[1],
        hidden_channels=_network(encoder, channels),
        encoder_layers=_layers(model.section("encoder"), 6),
        decoder_layers=_layers(model.section("decoder"), 6),
        dropout=encoder.section("ffn_cfg").get("ffn_drop", 0.0),
        queries=model.get("num_queries", 100),
        refine=model.get("with_box_refine", default=False),
        per_image=model.section("test_cfg", {}).count("max_per_img", 100),
        preprocessing=parts.preprocessing(config, model),
    )
    model.require("num_feature_levels", [len(found.strides)], default=4)
    _decoder(decoder, found)
    _positions(model.section("positional_encoding", {"normalize": True, "offset": -0.5}), channels)
    head.of_type("DeformableDETRHead")
    parts.check_classes(head, classes)
    head.require("embed_dims", [channels], default=WIDTH)
    head.skip(*LOSSES, *UNREAD)
    head.finish()
    model.require("as_two_stage", [False], default=False)
    model.skip("type", "train_cfg", *UNREAD)
    model.finish()
    return found


def names(built: QueryArchitecture) -> Rules:
    """What MMDetection 3.x calls our weights, once `prepared`."""
    branches = r"(\d+)" if built.refine else "(0)"
    return (
        *backbones.names(built.backbone),
        (r"neck\.convs\.(\d+)\.conv\.", r"neck.lateral.\1.conv."),
        (r"neck\.convs\.(\d+)\.gn\.", r"neck.lateral.\1.norm."),
        (r"neck\.extra_convs\.(\d+)\.conv\.", r"neck.extra.\1.conv."),
        (r"neck\.extra_convs\.(\d+)\.gn\.", r"neck.extra.\1.norm."),
        (r"level_embed$", r"encoder.level_embed"),
        *_layer_names("encoder", "encoder", ENCODER_NORMS),
        *_layer_names("decoder", "head", DECODER_NORMS),
        (r"query_embedding\.", r"head.queries."),
        (r"reference_points_fc\.", r"head.reference_points."),
        (rf"bbox_head\.cls_branches\.{branches}\.", r"head.cls.\1."),
        *(
            (rf"bbox_head\.reg_branches\.{branches}\.{2 * i}\.", rf"head.box.\1.layers.{i}.")
            for i in range(3)
        ),
    )


def _layer_names(theirs: str, ours: str, norms: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    layer, kept = rf"{theirs}\.layers\.(\d+)", rf"{ours}.layers.\1"
    yield rf"{layer}\.ffn\.layers\.0\.0\.", rf"{kept}.mlp.fc1."
    yield rf"{layer}\.ffn\.layers\.1\.", rf"{kept}.mlp.fc2."
    for i, norm in enumerate(norms):
        yield rf"{layer}\.norms\.{i}\.", rf"{kept}.{norm}."
    yield rf"{layer}\.self_attn\.(?:attn\.out_proj|o_proj)\.", rf"{kept}.self_attn.o_proj."
    yield rf"{layer}\.self_attn\.", rf"{kept}.self_attn."
    yield rf"{layer}\.cross_attn\.", rf"{kept}.encoder_attn."


def prepared(weights: Mapping[str, Tensor], built: QueryArchitecture) -> dict[str, Tensor]:
    """Tensors that can be copied as they are, by the names of 3.x.

    Queries, keys and values of the decoder's self-attention stand in one tensor, and branches that
    are one module in as many as there are stages.
    """
    found = {}
    for name, tensor in weights.items():
        renamed = _as_3x(name)
        packed = re.fullmatch(r"(.+\.self_attn)\.attn\.in_proj_(weight|bias)", renamed)
        if packed:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                found[f"{packed[1]}.{letter}_proj.{packed[2]}"] = part
        elif built.refine or not re.match(r"bbox_head\.(cls|reg)_branches\.[1-9]", renamed):
            found[renamed] = tensor
    return found


def _as_3x(name: str) -> str:
    for old, new in TO_3X:
        name = re.sub(f"^{old}", new, name)
    return name


def _projection(neck: Section) -> int:
    """Checks the neck; its channels."""
    neck.of_type("ChannelMapper")
    neck.require("kernel_size", [1], default=3)
    neck.require("act_cfg", [None], default={"type": "ReLU"})
    norm = neck.section("norm_cfg")
    norm.of_type("GN")
    norm.skip("num_groups", "requires_grad")
    norm.finish()
    neck.skip("in_channels", "num_outs", *UNREAD)
    channels: int = neck.get("out_channels")
    neck.finish()
    return channels


def _attention(section: Section, channels: int) -> tuple[int, int]:
    """Heads and places of an attention that looks around."""
    section.require("embed_dims", [channels], default=WIDTH)
    found = section.get("num_heads", 8), section.get("num_points", 4)
    section.skip("type", "num_levels", "dropout", "batch_first", "im2col_step", *UNREAD)
    section.finish()
    return found


def _network(layer: Section, channels: int) -> int:
    """Width inside a layer's two-layer network."""
    network = layer.section("ffn_cfg")
    network.require("embed_dims", [channels], default=WIDTH)
    network.require("num_fcs", [2], default=2)
    activation = network.section("act_cfg", {"type": "ReLU"})
    activation.of_type("ReLU")
    network.skip("ffn_drop", *UNREAD)
    hidden: int = network.get("feedforward_channels", 1024)
    network.finish()
    return hidden


def _layers(section: Section, default: int) -> int:
    section.skip("layer_cfg", "num_cp", "return_intermediate", "post_norm_cfg", *UNREAD)
    number: int = section.get("num_layers", default)
    section.finish()
    return number


def _decoder(layer: Section, found: QueryArchitecture) -> None:
    """The decoder's layers must be as wide as the encoder's and look as far."""
    inner = layer.section("self_attn_cfg")
    inner.require("num_heads", [found.heads], default=8)
    looking = _attention(layer.section("cross_attn_cfg"), found.neck_channels)
    hidden = _network(layer, found.neck_channels)
    if (*looking, hidden) != (found.heads, found.points, found.hidden_channels):
        raise layer.refusal("cross_attn_cfg and ffn_cfg", (*looking, hidden), "the encoder's")


def _positions(section: Section, channels: int) -> None:
    """The encoding of places must be the normalised sine, shifted to the middle of a cell."""
    section.require("num_feats", [channels // 2], default=channels // 2)
    section.require("normalize", [True], default=False)
    section.require("offset", [-0.5], default=0.0)
    section.require("temperature", [10000], default=10000)
    section.skip("type")
    section.finish()
