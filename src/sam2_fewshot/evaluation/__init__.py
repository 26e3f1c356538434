"""How well detections agree with the true objects."""
