"""The page of a folder of results, drawn from what is stored in it."""

from __future__ import annotations

from pathlib import Path

from emulator.analysis.run_record import read_document, read_folder
from emulator.report.comparison_page import comparison_page
from emulator.report.keep import COMPARISON, SEEDS, SENSITIVITY, TRUTH
from emulator.report.run_page import run_page
from emulator.report.seeds_page import seeds_page
from emulator.report.sensitivity_text import sensitivity_page
from emulator.report.truth_page import truth_page

DOCUMENTS = (
    (COMPARISON, comparison_page),
    (TRUTH, truth_page),
    (SEEDS, seeds_page),
    (SENSITIVITY, sensitivity_page),
)


def page_of(folder: Path) -> str:
    """Of one of the documents, or else of a run; `FolderError` where none of these is there."""
    for name, draw in DOCUMENTS:
        if (folder / name).exists():
            return draw(read_document(folder / name))
    return run_page(read_folder(folder))
