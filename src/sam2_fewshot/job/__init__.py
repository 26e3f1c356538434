"""The main job: image files and marked examples in, files with every similar object out."""

from sam2_fewshot.job.again import request_again
from sam2_fewshot.job.display import Display, Silent
from sam2_fewshot.job.plan import Plan, Request, make_plan
from sam2_fewshot.job.run import Failure, Summary, run

__all__ = ["Display", "Failure", "Plan", "Request", "Silent", "Summary", "make_plan", "request_again", "run"]
