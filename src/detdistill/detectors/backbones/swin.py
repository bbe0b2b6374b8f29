"""Swin-T of torchvision as a backbone, with a norm for each map that is read.

Source: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV
2021; the norms on the maps are those of its detectors. Images of any size: patches, windows and
pairs of cells are filled up with zeros. A map that fits into one window is not shifted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer

from detdistill.detectors.backbones.features import STANDARD_WIDTH, Backbone, Features
from detdistill.errors import UserError
from detdistill.levels import Levels

PATCH = 4
WINDOW = 7
DEPTHS = (2, 2, 6, 2)
"""Blocks of each stage of Swin-T."""
WIDTH = 96
"""Channels of the first stage of Swin-T."""
HEAD_WIDTH = 32
"""Channels that each head of the attention has, or somewhat more where a width does not divide."""


class Swin(Features):
    """A Swin-T whose weights are named as torchvision names them; its norms are `norms.STAGE`."""

    fresh = ("norms.",)

    def __init__(self, settings: Backbone) -> None:
        super().__init__(settings)
        width, last = WIDTH * settings.width // STANDARD_WIDTH, max(settings.stages)
        heads = max(1, width // HEAD_WIDTH)
        if width == 0 or width % heads:
            raise UserError(
                f"A swin_t cannot have width {settings.width}: its {width} channels do not divide "
                f"among {heads} heads. Take a multiple of 8."
            )
        whole = SwinTransformer(
            patch_size=[PATCH, PATCH],
            embed_dim=width,
            depths=list(DEPTHS[:last]),
            num_heads=[heads * 2**i for i in range(last)],
            window_size=[WINDOW, WINDOW],
            stochastic_depth_prob=settings.drop_path,
        )
        self.features = whole.features
        self.channels = tuple(width * 2 ** (stage - 1) for stage in settings.stages)
        self.norms = nn.ModuleDict(
            {str(stage): nn.LayerNorm(width * 2 ** (stage - 1)) for stage in settings.stages}
        )
        beyond = range(len(self.features), 2 * len(DEPTHS))
        self.ignored = ("norm.", "head.", *(f"features.{i}." for i in beyond))
        self.freeze()

    def forward(self, images: Tensor) -> Levels:
        """See `Features.forward`."""
        height, width = images.shape[-2:]
        x, levels = F.pad(images, (0, -width % PATCH, 0, -height % PATCH)), []
        for i, part in enumerate(self.features):
            x = part(x)
            stage = str((i + 1) // 2)
            if i % 2 and stage in self.norms:
                levels.append(self.norms[stage](x).permute(0, 3, 1, 2))
        return tuple(levels)

    def parts(self, stages: int) -> Sequence[nn.Module]:
        """See `Features.parts`."""
        norms = [norm for stage, norm in self.norms.items() if int(stage) <= stages]
        return [*list(self.features)[: 2 * stages], *norms]
