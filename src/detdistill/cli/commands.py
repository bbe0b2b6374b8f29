"""From a command line to a verb, and from what it returns to the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from detdistill.cli import comparisons, experiments, options, tables, verbs
from detdistill.train.experiment import to_dict

Arguments = Sequence[str]

ABOUT_THE_DEMO = """\
AP in percent on pictures that nothing was tuned on; of one seed, so 3 AP may be chance.
Equal compute: the student alone trains for as long as crosskd+pkd takes, the teacher's forward
passes included and the teacher's own training not."""

ABOUT_COMPARISONS = """\
AP in percent, mean ± standard deviation over seeds; gains over the student alone at equal steps and
equal seeds, with 95 % intervals over seeds (Student's t) and over resampled test images.
Cost: a step in steps of the student alone, the teacher's forward pass included."""


def demo(arguments: Arguments) -> None:
    """Trains what is missing and shows the table."""
    given = options.demo().parse_args(list(arguments)).as_dict()
    summary = verbs.demo(**given)
    tables.demo_table(summary)
    tables.say(f"\n{ABOUT_THE_DEMO}\n")
    tables.say(f"The report: {Path(given['out']) / 'report.html'}")


def train(arguments: Arguments) -> None:
    """Trains without a teacher."""
    _train("train", arguments)


def distill(arguments: Arguments) -> None:
    """Trains with a teacher."""
    _train("distill", arguments)


def _train(command: str, arguments: Arguments) -> None:
    request = experiments.from_arguments(command, arguments)
    if request.print_config:
        _print_config(request)
        return
    tables.say(f"Run folder: {request.out}")
    found = verbs.fulfil(request)
    tables.metrics_table(found["metrics"])
    tables.say(f"\nThe trained detector: {request.out / 'student.safetensors'}")


def _print_config(request: experiments.Request) -> None:
    tables.say(yaml.safe_dump(to_dict(request.experiment), sort_keys=False).strip())


def compare(arguments: Arguments) -> bool:
    """Trains what is missing and shows the tables; whether all trainings succeeded."""
    request = comparisons.from_arguments(arguments)
    if request.print_config:
        tables.say(comparisons.written(request).strip())
        return True
    found = comparisons.fulfil(request)
    tables.comparison_table(found["rows"])
    tables.say(f"\n{ABOUT_COMPARISONS}\n")
    for reason in found["failed"]:
        tables.warn(f"failed: {reason}")
    for name in comparisons.FILES:
        tables.say(f"{name}: {found[name]}")
    return not found["failed"]


def evaluate(arguments: Arguments) -> None:
    """Shows COCO's numbers."""
    found = verbs.evaluate(**options.evaluate().parse_args(list(arguments)).as_dict())
    tables.say(f"{found['images']} {found['split']} images of {found['data']}")
    tables.metrics_table(found["metrics"])
    for note in found["notes"]:
        tables.warn(f"note: {note}")


def predict(arguments: Arguments) -> None:
    """Shows how many objects were found in each picture."""
    given = options.predict().parse_args(list(arguments)).as_dict()
    found = verbs.predict(**given)
    tables.prediction_table(found["images"], found["detections"])
    for reason in found["skipped"].values():
        tables.warn(f"skipped: {reason}")
    tables.say(f"\n{len(found['images'])} picture(s), {len(found['skipped'])} skipped")
    tables.say(f"Detections: {given['out']}")


def data(arguments: Arguments) -> bool:
    """Looks through a data set, converts it, or shows some of it; whether nothing is wrong."""
    from detdistill.cli import datasets

    return datasets.run(arguments)


def export(arguments: Arguments) -> None:
    """Says how far the file is from PyTorch, and how good it is if it is a coarser one."""
    found = verbs.export(**options.export().parse_args(list(arguments)).as_dict())
    if "differences" in found:
        tables.agreement_table(found["differences"])
    if found.get("metrics"):
        tables.precision_table(found["metrics"])
    tables.say(f"\nThe detector, {found['megabytes']:.1f} MB: {found['file']}")


def import_checkpoint(arguments: Arguments) -> None:
    """Says what became of the tensors."""
    given = options.import_checkpoint().parse_args(list(arguments)).as_dict()
    found = verbs.import_checkpoint(**given)
    tables.import_table(found)
    for what in found["left_out"]:
        tables.say(f"left out: {what}")
    for note in found["notes"]:
        tables.warn(f"note: {note}")
    tables.say(f"\nThe detector, {found['architecture']['family']}: {found['file']}")


def report(arguments: Arguments) -> None:
    """Writes the page and says where it lies."""
    tables.say(str(verbs.report(**options.report().parse_args(list(arguments)).as_dict())))


def explain(arguments: Arguments) -> None:
    """Says which figures there are now and why others are not."""
    found = verbs.explain(**options.explain().parse_args(list(arguments)).as_dict())
    titles = ((entry["name"], entry["title"]) for entry in found["figures"])
    tables.show(("figure", ""), list(titles))
    for name, reason in found["missing"].items():
        tables.warn(f"no {name}: {reason}")
    tables.say(f"\nPNG, SVG, JSON and CSV: {found['folder']}")


def methods(arguments: Arguments) -> None:
    """A table of methods, or all about one, or which fits what."""
    given = options.methods().parse_args(list(arguments))
    from detdistill.cli import fit_table, listings

    if given.table:
        fit_table.show()
    elif given.name:
        listings.show_method(given.name)
        fit_table.show_refusals(given.name)
    else:
        listings.show_methods()


def detectors(arguments: Arguments) -> None:
    """A table of detectors."""
    options.detectors().parse_args(list(arguments))
    from detdistill.cli import listings

    listings.show_detectors()


def recipes(arguments: Arguments) -> None:
    """A table of recipes, or all about one."""
    name = options.recipes().parse_args(list(arguments)).name
    from detdistill.cli import recipe_listing

    if name:
        recipe_listing.show_one(name)
    else:
        recipe_listing.show()


def doctor(arguments: Arguments) -> bool:
    """The environment, and a dry run if any option is given; whether the training would go on."""
    request = experiments.from_arguments("doctor", arguments)
    if request.print_config:
        _print_config(request)
        return True
    from detdistill import doctor as checks
    from detdistill.cli import diagnosis

    diagnosis.show_environment(checks.environment())
    if not arguments:
        return True
    run = verbs.dry_run(request)
    diagnosis.show_dry_run(run)
    return not run.complaint
