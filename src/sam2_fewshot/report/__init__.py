"""``report.html``: one file that displays the detections, and helps to choose the threshold and to correct them."""
