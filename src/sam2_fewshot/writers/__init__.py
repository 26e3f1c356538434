"""Detections on their way out: a journal of finished frames, and the files assembled from it."""
