from collections.abc import Callable

import numpy as np
import pytest
from shapely import Point

from sam2_fewshot.annotations.record import ExampleMark, FrameRecord
from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.records import Detection, InstanceMask, Location


@pytest.fixture
def make_record() -> Callable[..., FrameRecord]:
    """Make a frame's record with `objects` random blobs that overlap here and there."""

    def make(
        objects: int = 3,
        location: Location | None = None,
        name: str = "cells.png",
        shape: tuple[int, int] = (60, 80),
        size_z: int = 1,
        size_t: int = 1,
        stem: str = "",
    ) -> FrameRecord:
        place = location or Location()
        random = np.random.default_rng(objects + 10 * place.z + 100 * place.time)
        detections = []
        for index in range(objects):
            data = random.random((7, 9)) > 0.3
            instance = InstanceMask(data, index * 5 % (shape[1] - 9), index * 3 % (shape[0] - 7), shape)
            score, similarity, predicted_iou = random.random(3).tolist()
            polygon = mask_to_polygon(instance, 0.3)
            detections.append(Detection(instance, polygon, score, similarity, predicted_iou, place))
        return FrameRecord(
            name=name,
            stem=stem or name.rsplit(".", 1)[0],
            location=place,
            frame_shape=shape,
            size_z=size_z,
            size_t=size_t,
            detections=tuple(detections),
            candidates=objects * 4,
            seconds={"encode": 1.5, "propose": 0.25},
            examples=(
                ExampleMark(mask_to_polygon(InstanceMask(np.ones((3, 4), bool), 5, 6, shape))),
                ExampleMark(Point(10.25, 20.5), negative=True),
            ),
            warnings=("It is dark.",),
        )

    return make
