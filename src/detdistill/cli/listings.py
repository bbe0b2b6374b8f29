"""What there is to choose from: methods and detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detdistill import detectors, methods
from detdistill.cli import hyperparameters, tables
from detdistill.cli.settings import short
from detdistill.errors import MissingExtraError

COCO_CLASSES = 80
"""Detectors are listed as they would be built for COCO."""


@dataclass(frozen=True, kw_only=True)
class MethodCard:
    """One method."""

    name: str
    idea: str
    paper: str
    reads: str
    differs: str
    reading: str
    families: tuple[str, ...]
    settings: dict[str, Any]
    citation: str


@dataclass(frozen=True, kw_only=True)
class DetectorCard:
    """One detector."""

    name: str
    family: str
    """As methods name it: `dense`, `region` or `query`."""
    parameters: int
    strides: tuple[int, ...]
    channels: int
    tower_depth: int


def method_cards() -> list[MethodCard]:
    """All methods that come with the package."""
    return [method_card(name) for name in methods.names()]


def method_card(name: str) -> MethodCard:
    """One method.

    Raises:
        UserError: there is no such method.
    """
    found = methods.find(name)
    about = methods.about(found)
    return MethodCard(
        name=name,
        idea=about["idea"],
        paper=about["Paper"],
        reads=about["Reads"],
        differs=about["Differs"],
        reading=found.reading,
        families=found.families,
        settings={setting.name: setting.default for setting in hyperparameters.of(found)},
        citation=getattr(found, "citation", ""),
    )


def detector_cards() -> list[DetectorCard]:
    """All detectors with a name, but for those whose packages are not installed."""
    return _cards_and_missing()[0]


def show_methods() -> None:
    """Prints the table of methods."""
    rows = [
        (card.name, card.reads, ", ".join(card.families), _written(card), _source(card))
        for card in method_cards()
    ]
    tables.show(("method", "reads", "families", "hyper-parameters", "paper"), rows)
    tables.say("\nCombine them with a plus, as crosskd+pkd. 'detdistill methods NAME' says more.")


def show_method(name: str) -> None:
    """Prints all about one method."""
    card = method_card(name)
    tables.say(f"{card.name}\n\n{card.idea}\n")
    about = {
        "Paper": card.paper,
        "Our reading": card.reading,
        "Reads": card.reads,
        "Differs": card.differs,
        "Families": ", ".join(card.families),
    }
    for title, text in about.items():
        if text:
            tables.say(f"{title + ':':<13}{text}")
    tables.say("\nHyper-parameters")
    rows = [
        (f"--{short(name)}.{setting.name}", tables.written(setting.default), setting.meaning)
        for setting in hyperparameters.of(methods.find(name))
    ]
    tables.show(("option", "default", "meaning"), rows)
    if card.citation:
        tables.say(f"\n{card.citation}")


def show_detectors() -> None:
    """Prints the table of detectors, and what else there would be."""
    cards, missing = _cards_and_missing()
    rows = [
        (
            card.name,
            card.family,
            f"{card.parameters / 1e6:.2f} M",
            ", ".join(map(str, card.strides)),
            str(card.channels),
            str(card.tower_depth) if card.family == "dense" else "",
        )
        for card in cards
    ]
    columns = ("detector", "family", "parameters", "strides", "neck channels", "tower depth")
    tables.show(columns, rows)
    tables.say(
        f"\nFor {COCO_CLASSES} classes. A width behind the name scales it: gfl-r50-w0.25. Others: "
        "gfl-r50-caffe (stride in the 1x1, BGR), gfl-timm/MODEL."
    )
    for sentence in missing:
        tables.say(sentence)


def _cards_and_missing() -> tuple[list[DetectorCard], list[str]]:
    """The detectors that can be built here, and a sentence on each kind that cannot."""
    cards, missing = [], []
    for name in detectors.names():
        try:
            cards.append(_detector_card(name))
        except MissingExtraError as error:
            missing.append(str(error))
    return cards, list(dict.fromkeys(missing))


def _detector_card(name: str) -> DetectorCard:
    """Built without memory or initialisation, for its figures alone."""
    import torch

    with torch.device("meta"):
        detector = detectors.build(name, [str(number) for number in range(COCO_CLASSES)])
    return DetectorCard(
        name=name,
        family=detector.spec.family,
        parameters=detectors.parameter_count(detector),
        strides=detector.spec.strides,
        channels=detector.spec.channels,
        tower_depth=detector.spec.tower_depth,
    )


def _source(card: MethodCard) -> str:
    return f"{card.paper} (our reading)" if card.reading else card.paper


def _written(card: MethodCard) -> str:
    return ", ".join(f"{name} {tables.written(default)}" for name, default in card.settings.items())
