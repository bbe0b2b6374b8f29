"""Command lines, files, recipes and Python calls all become the same experiment."""

from pathlib import Path

import pytest
import yaml

from detdistill import recipes
from detdistill.cli.experiments import Request, default_folder, from_arguments, from_settings
from detdistill.errors import UserError
from detdistill.train.experiment import Experiment, Optimizer, check, from_dict, to_dict


def distill(*words: str) -> Request:
    return from_arguments("distill", ["--teacher", "t", *words])


def test_a_method_brings_its_options() -> None:
    experiment = distill("--method", "crosskd+pkd", "--pkd.weight", "2").experiment
    assert list(experiment.methods) == ["crosskd", "pkd"]
    assert experiment.methods["pkd"]["weight"] == 2.0


def test_the_command_line_overrides_the_file_and_the_file_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("steps: 7\nseed: 3\n")
    words = ["--recipe", "benchmark/teacher", "--config", str(file), "--seed", "4"]
    experiment = distill(*words).experiment
    assert (experiment.student, experiment.steps, experiment.seed) == ("gfl-mini-w32", 7, 4)
    assert experiment.optimizer.lr == 3e-3


def test_a_method_on_the_command_line_replaces_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("methods: {crosskd: {cut: 1}, pkd: {weight: 2.0}}\n")
    assert list(distill("--config", str(file)).experiment.methods) == ["crosskd", "pkd"]
    chosen = distill("--config", str(file), "--method", "pkd").experiment
    assert chosen.methods["pkd"]["weight"] == 2.0
    assert list(chosen.methods) == ["pkd"]


def test_what_is_printed_can_be_read_again(tmp_path: Path) -> None:
    first = distill("--method", "tid", "--optimizer.milestones", "[0.5, 0.75]").experiment
    file = tmp_path / "printed.yaml"
    file.write_text(yaml.safe_dump(to_dict(first)))
    assert from_arguments("distill", ["--config", str(file)]).experiment == first


def test_a_python_call_is_a_command_line() -> None:
    called = from_settings(
        "distill",
        {"teacher": "t", "method": "pkd", "pkd": {"weight": 2.0}, "optimizer": {"lr": 0.1}},
    )
    assert called == distill("--method", "pkd", "--pkd.weight", "2", "--optimizer.lr", "0.1")
    assert from_settings("train", {"out": Path("runs/own")}).out == Path("runs/own")


def test_a_foreign_method_is_named_by_its_import_path() -> None:
    experiment = distill("--method", "detdistill.methods.pkd", "--pkd.weight", "2").experiment
    assert experiment.methods["detdistill.methods.pkd"]["weight"] == 2.0


def test_a_file_may_name_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("recipe: benchmark/teacher\nsteps: 7\n")
    request = distill("--config", str(file))
    assert (request.experiment.student, request.experiment.steps) == ("gfl-mini-w32", 7)
    assert request.recipe == "benchmark/teacher"
    file.write_text("recipe: nonsense\n")
    with pytest.raises(UserError, match="Unknown recipe 'nonsense'"):
        distill("--config", str(file))


@pytest.mark.parametrize(
    "methods",
    [
        "method: [crosskd, pkd]",
        "methods: [crosskd, pkd]",
        "methods: crosskd+pkd",
        "methods: {crosskd: null, pkd: {}}",
    ],
)
def test_methods_can_be_listed(methods: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(methods)
    assert list(distill("--config", str(file)).experiment.methods) == ["crosskd", "pkd"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("methods: 5", "different names with a plus"),
        ("methods: {pkd: 5}", "pkd is 5, but must be its settings"),
        ("method: 5", "different names with a plus"),
        ("method: [pkd, 5]", "different names with a plus"),
        ("optimizer:", "optimizer is None, but must be settings"),
        ("optimizer: 5", "optimizer is 5, but must be settings"),
        ("augment:", "augment is None, but must be settings"),
        ("optimizer: {lr: null}", "optimizer.lr is None, but must be a number"),
        ("optimizer: {betas: null}", "optimizer.betas is None, but must be a list of 2"),
        ("optimizer: {milestones: [8, 11]}", "shares of the training"),
        ("augment: {short_sides: null}", "augment.short_sides is None, but must be a list"),
        ("steps:", "steps is None, but must be a whole number"),
        ("flip:", "flip is None, but must be a number"),
        ("data:", "data is None, but must be a text"),
        ("student:", "student is None, but must be a text"),
        ("precision:", "precision is None, but must be one of 'fp32'"),
        ("steps: many", "--steps takes int, not 'many'"),
        ("out: 5", "out is 5, but must be a text or a path or null"),
        ("resume: maybe", "resume is 'maybe', but must be true or false"),
        ("recipe: 5", "recipe is 5, but must be a text or null"),
        ("config: other.yaml", "names another file"),
        ("- steps", "does not hold settings"),
    ],
)
def test_a_slip_in_a_file_is_answered(line: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(line)
    with pytest.raises(UserError, match=said):
        check(distill("--config", str(file)).experiment)


def test_settings_of_a_wrong_type_are_refused_wherever_they_come_from() -> None:
    with pytest.raises(UserError, match="steps is 'many', but must be a whole number"):
        from_dict({"steps": "many"})
    with pytest.raises(UserError, match="precision is None, but must be one of 'fp32', 'bf16'"):
        Experiment(precision=None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"optimizer\.lr is None, but must be a number"):
        Experiment(optimizer=Optimizer(lr=None))  # type: ignore[arg-type]


def test_train_accepts_the_file_of_a_plain_run(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(to_dict(Experiment(steps=5))))
    assert from_arguments("train", ["--config", str(file)]).experiment.steps == 5


@pytest.mark.parametrize("words", [["--teacher", "t"], ["--method", "pkd"]])
def test_train_refuses_what_belongs_to_distill(words: list[str]) -> None:
    with pytest.raises(UserError, match="use 'detdistill distill'"):
        from_arguments("train", words)


@pytest.mark.parametrize("setting", [{"fold_teacher": False}, {"teacher_scale": 2.0}])
def test_train_refuses_a_file_that_says_something_of_a_teacher(
    setting: dict[str, object], tmp_path: Path
) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(setting))
    with pytest.raises(UserError, match="use 'detdistill distill'"):
        from_arguments("train", ["--config", str(file)])


@pytest.mark.parametrize("joined", ["crosskd+", "pkd+pkd", "+"])
def test_a_broken_combination_is_refused(joined: str) -> None:
    with pytest.raises(UserError, match="different names with a plus"):
        distill("--method", joined)


def test_a_run_is_named_after_what_it_is() -> None:
    experiment = Experiment(
        data="coco:/data/birds", images=300, methods={"crosskd": {}, "pkd": {}}, seed=2
    )
    expected = Path("runs/gfl-quick-w8-crosskd+pkd-coco-birds-300images-s2")
    assert default_folder(experiment) == expected
    assert default_folder(Experiment()) == Path("runs/gfl-quick-w8-alone-shapes-s0")


def test_runs_on_different_data_have_different_names() -> None:
    names = [
        default_folder(Experiment(data=f"{data}.yaml")).name
        for data in ("yolo:/a/data", "yolo:/b/data", "coco:/b/few", "coco:/b/many", "coco:few")
    ]
    assert len(set(names)) == len(names)
    assert names[0] == "gfl-quick-w8-alone-yolo-a-data-s0"
    assert names[-1] == "gfl-quick-w8-alone-coco-few-s0"


def test_runs_of_different_widths_have_different_names() -> None:
    quarter, half = (Experiment(student=f"gfl-r50-w{width}") for width in ("0.25", "0.5"))
    assert default_folder(quarter) == Path("runs/gfl-r50-w0.25-alone-shapes-s0")
    assert default_folder(half) != default_folder(quarter)
    from_file = default_folder(Experiment(student="models/small.safetensors"))
    assert from_file == Path("runs/small-alone-shapes-s0")


def test_the_size_of_pictures_is_two_numbers(tmp_path: Path) -> None:
    experiment = distill("--resize", "[800, 1333]").experiment
    assert experiment.resize == (800, 1333)
    file = tmp_path / "printed.yaml"
    file.write_text(yaml.safe_dump(to_dict(experiment)))
    assert distill("--config", str(file)).experiment == experiment
    assert distill("--config", str(file), "--resize", "null").experiment.resize is None


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_an_experiment(name: str) -> None:
    experiment = distill("--recipe", name).experiment
    written = recipes.load(name)
    assert to_dict(experiment)["optimizer"].items() >= written["optimizer"].items()
    assert list(experiment.methods) == list(written.get("methods", {}))


def test_the_benchmarks_recipes_are_the_official_settings() -> None:
    teacher = recipes.load("benchmark/teacher")
    student = recipes.load("benchmark/crosskd+pkd")
    assert (teacher["steps"], teacher["optimizer"]["warmup_steps"]) == (1500, 100)
    assert (student["steps"], student["optimizer"]["warmup_steps"]) == (600, 60)
    assert student["methods"] == {"crosskd": {"cut": 1}, "pkd": {"weight": 6.0}}
