"""``report.html``: one file that shows what was found, and helps to choose the threshold and to correct it."""

from sam2_fewshot.report.page import REPORT, write_report

__all__ = ["REPORT", "write_report"]
