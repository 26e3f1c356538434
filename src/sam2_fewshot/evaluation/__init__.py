"""How well detections agree with the true objects."""

from sam2_fewshot.evaluation.figures import EvaluatedFrame, Evaluation, SizeClass, evaluate_frames
from sam2_fewshot.evaluation.matching import Matching, Scores, label_image_to_instances, match

__all__ = [
    "EvaluatedFrame",
    "Evaluation",
    "Matching",
    "Scores",
    "SizeClass",
    "evaluate_frames",
    "label_image_to_instances",
    "match",
]
