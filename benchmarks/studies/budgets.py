"""How much is trained: the numbers that a study's cost depends on."""

from __future__ import annotations

from dataclasses import dataclass

from detdistill.train.experiment import Experiment, Optimizer

STUDENT_RATE = 8e-3
TEACHER_RATE = 2e-3


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What students and teachers are trained on, and for how long."""

    data: str
    steps: int
    """Of a student."""
    teacher_steps: int
    batch_size: int = 8

    def student(self, detector: str, *, rate: float = STUDENT_RATE, longer: int = 1) -> Experiment:
        """A small detector's training; `longer` multiplies its steps."""
        return self._training(detector, self.steps * longer, rate)

    def teacher(self, detector: str, *, rate: float = TEACHER_RATE, longer: int = 1) -> Experiment:
        """A larger detector's training."""
        return self._training(detector, self.teacher_steps * longer, rate)

    def _training(self, detector: str, steps: int, rate: float) -> Experiment:
        """A tenth of the steps is for warm-up."""
        return Experiment(
            student=detector,
            data=self.data,
            steps=steps,
            batch_size=self.batch_size,
            optimizer=Optimizer(lr=rate, warmup_steps=steps // 10),
        )

    def of(self, steps: int) -> Budget:
        """The same with other steps of the students, and the teachers' in proportion."""
        scaled = max(1, round(self.teacher_steps * steps / self.steps))
        return Budget(data=self.data, steps=steps, teacher_steps=scaled, batch_size=self.batch_size)


LONG = Budget(data="shapes", steps=1000, teacher_steps=2000)
"""A student costs about a minute of one core, with a method two."""

SHORT = Budget(data="shapes:short", steps=400, teacher_steps=1000)
"""A student costs about 15 seconds of one core, with a method 20 to 30."""
