"""Pages that are generated say what the code says.

After a change on purpose: FREEZE_DOCS=1 python -m pytest tests/rules/test_docs_are_up_to_date.py
"""

import os
import re
from pathlib import Path

from detdistill import methods
from detdistill.cli import fit_table

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_methods_and_detectors_is_the_one_of_the_code() -> None:
    file, page = DOCS / "methods.md", fit_table.page()
    if os.environ.get("FREEZE_DOCS"):
        file.write_text(page, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == page


def test_a_reason_stands_once_however_many_methods_give_it() -> None:
    reasons = [line for line in fit_table.page().splitlines() if line.startswith("- ")]
    assert len(reasons) == len(set(reasons)) < len(methods.names())


def test_the_readme_lists_every_method() -> None:
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", text, flags=re.MULTILINE)
    assert sorted(listed) == sorted(methods.names())
    assert f"by one of {len(listed)} methods" in text
