"""FitNet: the student's neck should equal the teacher's, cell by cell.

The plainest feature distillation, and the yardstick of every other: half the mean squared error.

Paper: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015 (arXiv 1412.6550); on a
    detector's neck as in DeFeat (Guo et al., CVPR 2021, arXiv 2103.14475), "all neck".
Reads: the necks.
Differs: nothing from DeFeat's `mask-neck-one`. An adapter per level exists only where widths
    differ or where it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from detdistill.levels import Levels
from detdistill.methods.method import Method
from detdistill.methods.parts.necks import adapted, by_level, cell_errors
from detdistill.methods.parts.pair import Adapter, adapters, same_strides
from detdistill.structures import Spec, Step


class FitNet(Method):
    """Half the mean squared difference of the necks, averaged over the levels."""

    pulls: ClassVar[str] = "neck"
    citation: ClassVar[str] = """@inproceedings{romero2015fitnets,
  title = {{FitNets}: Hints for Thin Deep Nets},
  author = {Romero, Adriana and Ballas, Nicolas and Kahou, Samira Ebrahimi and Chassang, Antoine
            and Gatta, Carlo and Bengio, Yoshua},
  booktitle = {International Conference on Learning Representations},
  year = {2015},
}"""

    weight: float = 3.0
    """DeFeat's for a whole neck."""
    adapter: Adapter = "auto"
    """Layer between the student's neck and the comparison."""

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs equal strides."""
        same_strides("fitnet", teacher, student)
        self.adapters = adapters("fitnet", self.adapter, teacher, student)

    def forward(self, step: Step) -> Mapping[str, Tensor]:
        """`level0`, `level1`, ..."""
        share = self.weight / len(self.adapters)
        return by_level(share * lost.mean() for lost in self.cell_losses(step))

    def cell_losses(self, step: Step) -> Levels:
        """(B, H, W) per level: what each cell loses."""
        return tuple(error / 2 for error in cell_errors(adapted(self.adapters, step)))
