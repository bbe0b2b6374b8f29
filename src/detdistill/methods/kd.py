"""KD: the student's own predictions should equal the teacher's, on every prior.

Plain prediction mimicking, the baseline of CrossKD's tables: the same distances and divisors, but
without the crossing, so that the student's last layers hear both the labels and the teacher.

Paper: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531); on
    dense detectors as in CrossKD (Wang et al., CVPR 2024, arXiv 2306.11369), tables 3, 4 and 7.
Reads: the predictions of both, the label assignment.
Differs: no code was released for CrossKD's baseline; distances, weights and divisors are those of
    its method. Boxes are compared as distributions where both have equally many bins, as boxes
    elsewhere.
"""

from __future__ import annotations

from typing import ClassVar

from detdistill.methods.mimicry import Mimicry, common
from detdistill.methods.pair import same_predictions
from detdistill.structures import DensePredictions, Reads, Spec, Step


class KD(Mimicry):
    """Distance of the student's predictions from the teacher's."""

    pulls: ClassVar[str] = "predictions"
    citation: ClassVar[str] = """@misc{hinton2015distilling,
  title = {Distilling the Knowledge in a Neural Network},
  author = {Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff},
  year = {2015},
  eprint = {1503.02531},
  archiveprefix = {arXiv},
}"""

    @property
    def reads(self) -> Reads:
        """The teacher's predictions and the assignment."""
        return Reads(predictions=True, targets=True)

    def setup(self, teacher: Spec, student: Spec) -> None:
        """Needs the same priors and classes."""
        same_predictions("kd", teacher, student)
        self.compare(common(student, teacher))

    def predicted(self, step: Step) -> DensePredictions:
        """What the student says."""
        return step.student.dense
