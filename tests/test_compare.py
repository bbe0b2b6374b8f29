"""Comparisons, with trainings of two steps."""

import csv
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from detdistill import cluster, compare, data, detectors, grid
from detdistill.cli import comparisons, main
from detdistill.compare import Pair, Plan
from detdistill.errors import UserError
from detdistill.interop import checkpoint
from detdistill.machine import Machine
from detdistill.report.checkpoints import evaluation_file, read_checkpoint
from detdistill.train.experiment import OF_THE_TEACHER, Experiment, Optimizer

MICRO = [
    *("--data", "shapes:tiny", "--images", "16", "--batch_size", "4", "--resamples", "20"),
    *("--student", "gfl-mini-w8", "--teacher", "gfl-mini-w16"),
]


def plan(**changes: object) -> Plan:
    training = Experiment(
        data="shapes:tiny", images=16, steps=2, batch_size=4, student="gfl-mini-w8",
        optimizer=Optimizer(warmup_steps=0),
    )  # fmt: skip
    pair = Pair(student=training, teacher=replace(training, student="gfl-mini-w16"))
    settings: dict[str, object] = {"methods": {"pkd": {"pkd": {}}}, "seeds": (0, 1)}
    return Plan(pairs=(pair,), **{**settings, **changes})  # type: ignore[arg-type]


def finished(folder: Path, *, step_ms: float, steps: int = 2) -> None:
    """A run folder as far as a comparison reads it."""
    folder.mkdir(parents=True)
    cost = {"cpu_seconds": steps * step_ms / 1e3, "step_ms": 9 * step_ms}
    files = {
        "experiment.yaml": {"steps": steps},
        "status.json": {"state": "finished", "step": steps, "steps": steps},
        "environment.json": {"gpu": None},
        "evaluation.json": {"step": steps, "cost": cost},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


def test_trainings_are_ordered_so_that_a_stopped_comparison_has_whole_seeds() -> None:
    names = [job.name for job in compare.first_jobs(plan(), Path("out"))]
    assert names == [
        "teacher-gfl-mini-w16",
        *("gfl-mini-w8-alone-s0", "gfl-mini-w8-pkd-s0"),
        *("gfl-mini-w8-alone-s1", "gfl-mini-w8-pkd-s1"),
    ]
    assert compare.first_jobs(plan(), Path("out"))[2].after == ("teacher-gfl-mini-w16",)


def test_the_control_is_paid_as_much_as_the_costliest_method_takes(tmp_path: Path) -> None:
    methods = {"pkd": {"pkd": {}}, "crosskd": {"crosskd": {}}}
    chosen = plan(methods=methods)
    assert compare.controls(chosen, tmp_path) == []
    for seed in (0, 1):
        for name, step_ms in (("alone", 10), ("pkd", 15), ("crosskd", 25)):
            folder = compare.student_folder(chosen.pairs[0], name, seed, tmp_path)
            finished(folder, step_ms=step_ms)
    jobs = compare.controls(chosen, tmp_path)
    assert [job.name for job in jobs] == [f"gfl-mini-w8-equal-compute-5-s{s}" for s in (0, 1)]
    assert [(job.experiment.steps, job.experiment.seed) for job in jobs] == [(5, 0), (5, 1)]
    assert jobs[0].experiment.teacher is None


def test_what_is_said_of_the_teacher_is_left_out_where_there_is_none(tmp_path: Path) -> None:
    words = ["--methods", "pkd", *MICRO, "--steps", "2", "--seeds", "0", "--teacher_scale", "2"]
    words += ["--teacher_cache", "cache", "--teacher_cache_gb", "3"]
    words += ["--class_map", '{"star": null}', "--fold_teacher", "false"]
    chosen = comparisons.from_arguments(words).plan
    for name, step_ms in (("alone", 10), ("pkd", 25)):
        finished(compare.student_folder(chosen.pairs[0], name, 0, tmp_path), step_ms=step_ms)

    jobs = [*compare.first_jobs(chosen, tmp_path), *compare.controls(chosen, tmp_path)]
    said = {job.name: [vars(job.experiment)[name] for name in OF_THE_TEACHER] for job in jobs}

    assert said.pop("gfl-mini-w8-pkd-s0")[1:] == [{"star": None}, 2, "cache", 3, False]
    assert len(said) == 3
    assert list(said.values()) == [[None, {}, None, None, None, True]] * 3


def test_a_control_is_never_shorter(tmp_path: Path) -> None:
    for name, step_ms in (("alone", 10), ("pkd", 9)):
        finished(tmp_path / name, step_ms=step_ms)
    assert compare.equal_compute_steps(100, [tmp_path / "alone"], [tmp_path / "pkd"]) == 100


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": (0, 0)}, "would be called gfl-mini-w8-alone-s0"),
        ({"seeds": ()}, "at least one of each"),
        ({"methods": {"alone": {"pkd": {}}}}, "no row 'alone'"),
        ({"methods": {"a": {"pkdd": {}}}}, "pkdd"),
        ({"methods": {"a": {"pkd": {"wait": 1}}}}, "wait"),
        ({"pairs": plan().pairs * 2}, "would be called gfl-mini-w8-alone-s0"),
        ({"pairs": (replace(plan().pairs[0], teacher="runs/none"),)}, "runs/none"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_before_anything_is_trained(
    changes: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        compare.check(replace(plan(), **changes))  # type: ignore[arg-type]


def test_words_yaml_and_python_make_the_same_plan(tmp_path: Path) -> None:
    words = ["--methods", "pkd", "crosskd+pkd", "--pkd.weight", "2", "--steps", "50"]
    request = comparisons.from_arguments([*words, *MICRO, "--teacher_lr", "0.002"])
    file = tmp_path / "comparison.yaml"
    file.write_text(comparisons.written(request))
    assert comparisons.from_arguments(["--config", str(file)]).plan == request.plan
    assert comparisons.from_settings(yaml.safe_load(file.read_text())).plan == request.plan
    (pair,) = request.plan.pairs
    assert isinstance(pair.teacher, Experiment)
    assert (pair.teacher.steps, pair.teacher.optimizer.lr) == (100, 0.002)
    assert (pair.student.optimizer.warmup_steps, pair.teacher.optimizer.warmup_steps) == (5, 10)
    assert request.plan.methods["crosskd+pkd"] == {"crosskd": {}, "pkd": {"weight": 2.0}}


def test_a_row_of_a_file_has_its_own_name_and_settings() -> None:
    rows = {"weak": {"pkd": {"weight": 1.0}}, "kd": None, "both": ["kd", "pkd"]}
    request = comparisons.from_settings({"methods": rows, "teacher": "gfl-quick-w32", "kd": None})
    assert request.plan.methods == {
        "weak": {"pkd": {"weight": 1.0}},
        "kd": {"kd": {}},
        "both": {"kd": {}, "pkd": {}},
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seeds": None}, "seeds is None"),
        ({"student": None}, "student is None"),
        ({"out": 5}, "out is 5"),
        ({"cluster": 5}, "cluster is 5"),
        ({"overwrite": "maybe"}, "overwrite is 'maybe'"),
        ({"recipe": 5}, "recipe is 5"),
        ({"pkd": 5}, "pkd is 5"),
    ],
)
def test_settings_of_a_wrong_type_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=f"{said}, but must be"):
        comparisons.from_settings({"methods": "pkd", "teacher": "gfl-quick-w32", **settings})


CHOSEN = ("--methods", "pkd", "--teacher", "gfl-quick-w32")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name the methods"),
        (["--methods", "pkd"], "1 student and 0 teachers"),
        (["--methods", "pkd", "--teacher", "t", "--crosskd.cut", "1"], "add --methods crosskd"),
        (["--methods", "pkd", "--stepps", "3"], "Did you mean '--steps'"),
        ([*CHOSEN, "--parallel", "0"], "--parallel is 0, but must be at least 1"),
        ([*CHOSEN, "--teacher_steps", "0"], "--teacher_steps is 0, but must be at least 1"),
        ([*CHOSEN, "--teacher_lr", "0"], "--teacher_lr is 0.0, but must be above 0"),
        ([*CHOSEN, "--resamples", "-5"], "--resamples is -5, but must be at least 0"),
    ],
)
def test_mistakes_are_answered(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        comparisons.from_arguments(words)


@pytest.mark.parametrize("methods", [5, [1], {"row": 5}, {"row": {"pkd": 5}}, [["pkd", 1]]])
def test_methods_that_are_none_are_refused(methods: object) -> None:
    with pytest.raises(UserError, match=r"crosskd\+pkd|must be its settings"):
        comparisons.from_settings({"methods": methods, "teacher": "gfl-quick-w32"})


def test_the_exit_code_tells_of_failed_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"rows": [], "failed": ["lost"], **dict.fromkeys(comparisons.FILES, "there")}
    monkeypatch.setattr(comparisons, "fulfil", lambda _request: found)
    assert main(["compare", *CHOSEN]) == 1
    found["failed"] = []
    assert main(["compare", *CHOSEN]) == 0


def test_a_wrong_table_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    words = ["--methods", "pkd", *MICRO, "--out", str(tmp_path / "out"), "--against", "crosskd:5"]
    with pytest.raises(UserError, match="Did you mean 'crosskd:table5'"):
        comparisons.fulfil(comparisons.from_arguments(words))
    assert not (tmp_path / "out").exists()


def test_a_teacher_without_a_run_is_measured_once_as_its_students_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = data.open("shapes:tiny", "test", 2)
    asked: list[str] = []

    def few(name: str, split: str, **_: object) -> data.Dataset:
        asked.append(f"{name} {split}")
        return some

    monkeypatch.setattr(data, "open", few)
    file = tmp_path / "big.safetensors"
    checkpoint.save(detectors.build("gfl-mini-w8", some.classes), file)
    pair = replace(plan().pairs[0], teacher=str(file))

    compare.measure_teacher(pair, tmp_path)
    compare.measure_teacher(pair, tmp_path)

    assert asked == ["shapes:tiny test"]
    found = read_checkpoint(file, tmp_path)
    assert found is not None
    assert found.test == ("shapes:tiny", "test", 2)
    assert found.metric("AP") is not None
    assert found.latency is not None
    assert found.student == "gfl on resnet18"


@pytest.mark.parametrize(
    ("first", "class_map", "measured"),
    [((), {}, False), (("disc",), {}, False), (("disc",), {"disc": "solid circle"}, True)],
)
def test_a_teacher_is_measured_if_it_knows_all_classes_of_the_data(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: tuple[str, ...],
    class_map: dict[str, str | None],
    measured: bool,
) -> None:
    some = data.open("shapes:tiny", "test", 2)
    monkeypatch.setattr(data, "open", lambda *_, **__: some)
    file = tmp_path / "big.safetensors"
    checkpoint.save(detectors.build("gfl-mini-w8", (*first, *some.classes[1:])), file)
    pair = plan().pairs[0]
    student = replace(pair.student, class_map=class_map)

    compare.measure_teacher(replace(pair, student=student, teacher=str(file)), tmp_path)

    assert evaluation_file(file, tmp_path).exists() == measured


class InThisProcess:
    """Trains as soon as it is started, and says how many trainings there were."""

    def __init__(self, *, most: int | None = None) -> None:
        self.most = most
        self.trained: list[str] = []

    def __call__(self, words: Sequence[str], _log: Path) -> grid.Process:
        if len(self.trained) == self.most:
            raise KeyboardInterrupt
        self.trained.append(words[words.index("--out") + 1])
        return Ended(main(words))


@dataclass(frozen=True)
class Ended:
    code: int

    def poll(self) -> int:
        return self.code

    def send_signal(self, _number: int, /) -> None: ...

    def wait(self, _timeout: float, /) -> None: ...

    def kill(self) -> None: ...


def test_an_interrupted_comparison_goes_on_and_ends_with_tables_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--methods", "pkd", *MICRO, "--steps", "2", "--seeds", "3", "--out", str(tmp_path)]
    request = comparisons.from_arguments([*words, "--parallel", "1"])
    first, then = InThisProcess(most=2), InThisProcess()

    monkeypatch.setattr(Machine, "launch", staticmethod(first))
    with pytest.raises(KeyboardInterrupt, match="same command again"):
        comparisons.fulfil(request)
    assert not (tmp_path / "report.html").exists()

    monkeypatch.setattr(Machine, "launch", staticmethod(then))
    found = comparisons.fulfil(request)

    assert (len(first.trained), len(then.trained)) == (2, 2)
    assert found["failed"] == []
    with Path(found["csv"]).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["role"] for row in rows] == ["teacher", "alone", "equal_compute", "distilled"]
    assert {row["seeds"] for row in rows[1:]} == {"3"}
    assert "Student alone (equal compute)" in Path(found["markdown"]).read_text()
    assert Path(found["report"]).stat().st_size > 10_000


@pytest.mark.parametrize(("words", "workers"), [([], 7), (["--parallel", "3"], 3)])
def test_on_a_cluster_its_machines_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], workers: int
) -> None:
    machines = SimpleNamespace(places=7, launch=InThisProcess(most=0))
    asked: list[object] = []

    def connected(address: str) -> AbstractContextManager[SimpleNamespace]:
        asked.append(address)
        return nullcontext(machines)

    def run(*_: object, **how: object) -> None:
        asked.append((how["workers"], how["launch"]))
        raise UserError("enough")

    monkeypatch.setattr(cluster, "connected", connected)
    monkeypatch.setattr(compare, "run", run)
    cluster_words = ["--cluster", "10.0.0.1:6379", "--out", str(tmp_path / "out")]
    request = comparisons.from_arguments(["--methods", "pkd", *MICRO, *cluster_words, *words])

    with pytest.raises(UserError, match="enough"):
        comparisons.fulfil(request)

    assert asked == ["10.0.0.1:6379", (workers, machines.launch)]
    assert "cluster" not in comparisons.written(request)
