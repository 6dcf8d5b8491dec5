"""Records in, one self-contained HTML page out: no files are read, nothing is measured."""

from edgenas.reporting.contents import KernelRow, RunContents, TableContents
from edgenas.reporting.page import render_checks, render_prediction, render_run, render_table

__all__ = [
    "KernelRow",
    "RunContents",
    "TableContents",
    "render_checks",
    "render_prediction",
    "render_run",
    "render_table",
]
