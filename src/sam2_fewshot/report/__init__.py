"""``report.html``: one file that displays the detections, and helps to choose the threshold and to correct them."""

from sam2_fewshot.report.page import REPORT, write_report

__all__ = ["REPORT", "write_report"]
