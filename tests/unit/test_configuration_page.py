"""docs/configuration.md says what the settings say."""

from __future__ import annotations

import runpy

from tests.conftest import ROOT


def test_the_page_is_what_the_settings_say() -> None:
    """Every setting with its default, meaning and variable is on the page, and nothing else."""
    reference = runpy.run_path(str(ROOT / "docs" / "configuration_reference.py"))
    assert reference["PAGE"].read_text() == reference["page"](), "run: python docs/configuration_reference.py"
