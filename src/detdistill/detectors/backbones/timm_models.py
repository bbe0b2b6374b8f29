"""Any timm model with feature maps as a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from detdistill.detectors.backbones.features import Backbone, Features
from detdistill.errors import UserError
from detdistill.levels import Levels

RGB = tuple[float, float, float]


class TimmFeatures(Features):
    """A timm model that returns the feature maps at strides 4, 8, 16 and 32."""

    def __init__(self, settings: Backbone) -> None:
        super().__init__(settings)
        import timm

        if settings.frozen_stages:
            raise UserError(
                f"{settings.name}: frozen_stages is {settings.frozen_stages}, but of timm models "
                "only the statistics of norms can be frozen (frozen_norm)."
            )
        self.model = model_name(settings)
        with torch.device("meta"):
            whole = timm.create_model(self.model, features_only=True, pretrained=False)
        info = cast("Any", whole).feature_info
        strides = info.reduction()
        if not set(self.strides) <= set(strides):
            raise UserError(
                f"timm model {self.model!r} has maps at strides {strides}, "
                f"not {list(self.strides)}."
            )
        places = [strides.index(stride) for stride in self.strides]
        self.channels = tuple(info.channels()[place] for place in places)
        self._stages = tuple(info.out_indices[place] for place in places)
        self.body = self._built(pretrained=False)
        classifier = cast("Any", timm.get_pretrained_cfg(self.model)).classifier or ()
        names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        self.ignored = tuple(f"{name}." for name in names)

    def forward(self, images: Tensor) -> Levels:
        """See `Features.forward`."""
        return tuple(self.body(images))

    def parts(self, stages: int) -> Sequence[nn.Module]:
        """See `Features.parts`."""
        raise NotImplementedError(f"timm models have no parts in common, of which {stages} remain")

    def wanted(self) -> Mapping[str, Tensor]:
        """All of the model but its classifier, as timm names it."""
        import timm

        with torch.device("meta"):
            whole: nn.Module = timm.create_model(self.model, pretrained=False, num_classes=0)
        return whole.state_dict()

    def fill(self, weights: Mapping[str, Tensor]) -> None:
        """See `Features.fill`; timm knows what its names become in a model of feature maps."""
        filled = self._built(pretrained=True, pretrained_cfg_overlay={"state_dict": dict(weights)})
        self.body.load_state_dict(filled.state_dict())

    def _built(self, **settings: Any) -> nn.Module:  # noqa: ANN401 - of timm
        """The model as far as its last map that is read."""
        import timm

        model: nn.Module = timm.create_model(
            self.model, features_only=True, out_indices=self._stages, **settings
        )
        return model


def model_name(settings: Backbone) -> str:
    """What timm calls the model.

    Raises:
        UserError: timm does not know it.
    """
    import timm

    name = settings.name.removeprefix("timm/")
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name[:6]}*")[:5]) or "see timm.list_models()"
        raise UserError(f"timm has no model {name!r}. Near: {near}.")
    return name


def statistics(settings: Backbone) -> tuple[RGB, RGB]:
    """Mean and deviation, from 0 to 255, of the pictures that the model was trained with.

    Raises:
        UserError: timm does not know the model.
    """
    import timm

    found = cast("Any", timm.get_pretrained_cfg(model_name(settings)))
    return _in_bytes(*found.mean), _in_bytes(*found.std)


def _in_bytes(red: float, green: float, blue: float) -> RGB:
    return round(255 * red, 6), round(255 * green, 6), round(255 * blue, 6)
