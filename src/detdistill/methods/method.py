"""What a method is: settings that are dataclass fields, a `setup`, a `forward`."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, dataclass_transform, runtime_checkable

from torch import Tensor, nn

from detdistill.errors import UserError
from detdistill.levels import Levels
from detdistill.structures import Reads, Spec, Step


class UnsuitablePairError(UserError):
    """A method cannot work on this teacher and student; the message says why, in one sentence."""


@dataclass_transform(kw_only_default=True, eq_default=False)
class Method(nn.Module, ABC):
    """Turns a `Step` into named scalar losses.

    A subclass is a keyword-only dataclass: its annotated fields are the hyper-parameters, so there
    is no `__init__` to write. Parameters (adapters) are created in `setup`, once.
    """

    families: ClassVar[tuple[str, ...]] = ("dense", "region", "query")
    """The kinds of predictions that the method can work on."""
    pulls: ClassVar[str] = ""
    """What of the student it pulls towards the teacher: `neck`, `crossed predictions`, ...; several
    with an "and" between them."""
    needs: ClassVar[Reads] = Reads()
    """What it reads beside the student's neck, whatever its settings."""
    selects: ClassVar[bool] = False
    """Whether it ranks or suppresses, outside of what `torch.compile` compiles."""
    agrees: ClassVar[bool] = True
    """Whether a student that equals its teacher loses nothing, before anything is trained."""
    reading: ClassVar[str] = ""
    """Whose reading of the paper this is, where there was no code or no formula to go by."""
    citation: ClassVar[str] = ""
    """The paper, as BibTeX."""

    def __init_subclass__(cls, **keywords: Any) -> None:  # noqa: ANN401 - passed on as they are
        super().__init_subclass__(**keywords)
        dataclasses.dataclass(kw_only=True, eq=False, repr=False)(cls)

    def __new__(cls, *_args: object, **_settings: object) -> Self:
        """Initialises the module before the dataclass sets its fields."""
        method = super().__new__(cls)
        nn.Module.__init__(method)
        return method

    @property
    def reads(self) -> Reads:
        """What the method reads beside the student's neck, with its settings."""
        return self.needs

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Checks the pair and creates parameters.

        Raises:
            UnsuitablePairError: the method cannot work on this pair.
        """

    @abstractmethod
    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """Named scalar losses, weights included; zero-dimensional, with gradient to the student."""

    def pulling(self) -> list[str]:
        """What it pulls, one by one."""
        return self.pulls.split(" and ")

    def settings(self) -> dict[str, Any]:
        """The hyper-parameters by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """The hyper-parameters, as they would be written."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings().items())


@runtime_checkable
class CellByCell(Protocol):
    """A method that can also say what each cell loses, for methods that weigh cells."""

    def cell_losses(self, step: Step) -> Levels:
        """(B, H, W) per level, not negative, without weight."""


@runtime_checkable
class Looking(Protocol):
    """A method that can say where in the pictures it looks, by what its own `forward` looks by."""

    def areas(self, step: Step) -> Mapping[str, Levels]:
        """(B, H, W) per level of the teacher, not negative, by a name in a reader's words."""
