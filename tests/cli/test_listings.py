"""What the lists of methods say."""

import pytest

from detdistill.cli import listings, tables


def test_a_method_without_public_formulas_or_code_says_whose_reading_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[tuple[str, ...]] = []
    monkeypatch.setattr(tables, "show", lambda _, rows: shown.extend(rows))
    listings.show_methods()
    papers = {row[0]: row[-1] for row in shown}
    assert papers["tbd"].endswith("(our reading)")
    assert papers["tid"].endswith("(our reading)")
    assert not papers["pkd"].endswith("(our reading)")

    capsys.readouterr()
    listings.show_method("tbd")
    assert listings.method_card("tbd").reading in " ".join(capsys.readouterr().out.split())
