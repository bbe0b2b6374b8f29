"""Pages that are generated say what the code says.

After a change on purpose: FREEZE_DOCS=1 python -m pytest tests/rules/test_docs_are_up_to_date.py
"""

import os
from pathlib import Path

from detdistill.cli import fit_table

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_of_methods_and_detectors_is_the_one_of_the_code() -> None:
    file, page = DOCS / "methods.md", fit_table.page()
    if os.environ.get("FREEZE_DOCS"):
        file.write_text(page, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == page
