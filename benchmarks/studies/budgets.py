"""How much is trained: the numbers that a study's cost depends on."""

from __future__ import annotations

from dataclasses import dataclass

from detdistill.compare import with_steps
from detdistill.train.experiment import Experiment, Optimizer

STUDENT_RATE = 8e-3
TEACHER_RATE = 2e-3
RATES = {"faster_rcnn": 4e-3, "deformable_detr": 1.5e-3}
"""Of students, where a family wants another peak learning rate; no teacher's is higher."""
LONGER = {"retinanet": 2, "deformable_detr": 3}
"""How many times as many steps the families train that learn slowly."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What students and teachers are trained on, and for how long."""

    data: str
    steps: int
    """Of a student."""
    teacher_steps: int
    batch_size: int = 8

    def student(self, detector: str) -> Experiment:
        """A small detector's training."""
        return self._training(detector, self.steps, STUDENT_RATE)

    def teacher(self, detector: str) -> Experiment:
        """A larger detector's training."""
        return self._training(detector, self.teacher_steps, TEACHER_RATE)

    def _training(self, detector: str, steps: int, rate: float) -> Experiment:
        """As its family wants it."""
        family = detector.partition("-")[0]
        steps *= LONGER.get(family, 1)
        rate = min(rate, RATES.get(family, rate))
        training = Experiment(
            student=detector,
            data=self.data,
            batch_size=self.batch_size,
            optimizer=Optimizer(lr=rate),
        )
        return with_steps(training, steps)

    def of(self, steps: int) -> Budget:
        """The same with other steps of the students, and the teachers' in proportion."""
        scaled = max(1, round(self.teacher_steps * steps / self.steps))
        return Budget(data=self.data, steps=steps, teacher_steps=scaled, batch_size=self.batch_size)


LONG = Budget(data="shapes", steps=1000, teacher_steps=2000)
"""A student costs about a minute of one core, with a method two."""

SHORT = Budget(data="shapes:short", steps=400, teacher_steps=1000)
"""A student costs about 15 seconds of one core, with a method 20 to 30."""
