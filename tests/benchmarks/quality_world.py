"""Made-up frames, and a method that finds all that is true."""

import numpy as np
from benchmarks.quality.figures import Prediction
from benchmarks.quality.methods import Outcome
from benchmarks.quality.tasks import (
    Picture,
)

from sam2_fewshot.errors import InputError
from sam2_fewshot.records import InstanceMask


def box(x0, y0, width, height, frame=(100, 100)):
    return InstanceMask(np.ones((height, width), bool), x0, y0, frame)


def picture(name, classes, shape=(60, 400)):
    """Return a frame with a bright 20-px square for each class given, in a row, none at the border."""
    labels = np.zeros(shape, np.int32)
    for i in range(len(classes)):
        labels[20:40, 10 + 30 * i : 30 + 30 * i] = i + 1
    image = np.where(labels > 0, 200, 30).astype(np.uint8)
    return Picture(name, image, labels, dict(enumerate(classes, 1)))


class TruthTeller:
    """Finds all that is true, after learning anything; with a wrong find that scores least."""

    negatives = 0
    scored = True
    agreement = 0.8

    def __init__(self, label="truth", refuse=False):
        self.label, self.refuse = label, refuse

    def learn(self, episode):
        if self.refuse:
            raise InputError("None of the examples can be learned from.")

    def find(self, query):
        right = [Prediction(mask, 0.9) for mask in query.truth]
        wrong = Prediction(box(0, 0, 5, 5, query.picture.labels.shape), 0.2)
        return Outcome(right, [*right, wrong], {"look": 0.5})
