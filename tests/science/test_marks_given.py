"""Marks are taken as they come from NumPy, Pillow and label images, or refused in a sentence that says what to give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from disc_scenes import discs
from PIL import Image
from shapely import MultiPolygon, box

from sam2_fewshot import Exemplar, InputError, Settings
from sam2_fewshot.examples.training_set import training_set
from told import Told

if TYPE_CHECKING:
    from disc_scenes import Scene
    from numpy.typing import NDArray

    from sam2_fewshot.examples.training_set import TrainingSet
    from sam2_fewshot.protocols import Backbone

WHOLE, IN_PARTS = 10**9, 60_000


@pytest.fixture(scope="module")
def scene() -> Scene:
    return discs([(40 + 70 * (i % 4), 55 + 110 * (i // 4), 14) for i in range(8)])


def learned(backbone: Backbone, scene: Scene, most_pixels: int = WHOLE, **mark: Any) -> tuple[TrainingSet, list[str]]:
    """Learn from an example of this kind and another one; return what is said, too."""
    image, masks = scene
    told = Told()
    examples = [Exemplar(image, label="This", **mark), Exemplar(image, mask=masks[7].full())]
    return training_set(examples, backbone, Settings(), most_pixels, told), told.warnings


def labels_of(scene: Scene) -> NDArray[np.int32]:
    labels = np.zeros(scene[0].shape[:2], np.int32)
    for number, mask in enumerate(scene[1][:6], 3):
        labels[mask.full()] = number
    return labels


@pytest.mark.parametrize("most_pixels", [WHOLE, IN_PARTS])
@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.float32])
def test_a_label_image_is_not_one_object(
    filters: Backbone, scene: Scene, dtype: type[np.generic], most_pixels: int
) -> None:
    found, told = learned(filters, scene, most_pixels, mask=labels_of(scene).astype(dtype))
    assert told == [
        "This is left out: its mask has 6 different numbers besides 0; give one object, for instance labels == 3 of a "
        "label image, or probabilities > 0.5."
    ]
    assert found.areas.tolist() == [scene[1][7].area]


@pytest.mark.parametrize("most_pixels", [WHOLE, IN_PARTS])
@pytest.mark.parametrize(
    "kind", ["bool", "0/1", "0/255", "0/7", "0.0/1.0", "list", "masked", "Pillow's", "Pillow's of black and white"]
)
def test_a_mask_may_be_of_any_kind(filters: Backbone, scene: Scene, kind: str, most_pixels: int) -> None:
    mask = scene[1][2].full()
    given = {
        "bool": mask,
        "0/1": mask.astype(np.uint8),
        "0/255": mask * np.uint8(255),
        "0/7": mask * np.int64(7),
        "0.0/1.0": mask.astype(np.float64),
        "list": mask.tolist(),
        "masked": np.ma.array(np.ones(mask.shape, bool), mask=~mask),
        "Pillow's": Image.fromarray(mask * np.uint8(255)),
        "Pillow's of black and white": Image.fromarray(mask),
    }[kind]
    found, told = learned(filters, scene, most_pixels, mask=given)
    assert told == []
    assert sorted(found.areas.tolist()) == sorted(scene[1][i].area for i in (2, 7))


def test_what_is_no_mask_is_refused(scene: Scene) -> None:
    with pytest.raises(InputError, match=r"mask of an example must be an array \(height, width\), but it is \[\[1, 2"):
        Exemplar(scene[0], mask=[[1, 2], [3]])


@pytest.mark.parametrize("most_pixels", [WHOLE, IN_PARTS])
@pytest.mark.parametrize("kind", [tuple, list, np.array])
def test_points_and_boxes_may_be_arrays(filters: Backbone, scene: Scene, kind: Any, most_pixels: int) -> None:
    for mark in ({"point": kind((40, 55))}, {"box": kind((26, 41, 54, 69))}):
        found, told = learned(filters, scene, most_pixels, **mark)
        assert told == []
        assert len(found.areas) == 2
        exemplar = Exemplar(scene[0], **mark)
        assert all(type(value) is float for value in exemplar.point or exemplar.box)


def test_the_corners_of_a_box_may_be_any_two_opposite_ones(scene: Scene) -> None:
    for corners in ((54, 69, 26, 41), (26, 69, 54, 41), (54, 41, 26, 69)):
        assert Exemplar(scene[0], box=corners).box == (26, 41, 54, 69)


@pytest.mark.parametrize("corners", [(26, 41, 26, 69), (26, 41, 54, 41), (26, 41, 26, 41)])
def test_a_box_without_an_area_is_told(filters: Backbone, scene: Scene, corners: tuple[int, ...]) -> None:
    written = ", ".join(map(str, corners))
    assert learned(filters, scene, box=corners)[1] == [f"This is left out: its box ({written}) has no area."]


def test_what_is_left_of_an_outline_of_parts_is_told(filters: Backbone, scene: Scene) -> None:
    found, told = learned(filters, scene, polygon=MultiPolygon([box(10, 10, 20, 20), box(30, 40, 50, 60)]))
    assert told == ["This has an outline of 2 parts; its largest part is used."]
    assert sorted(found.areas.tolist()) == [400, scene[1][7].area]
    _, told = learned(filters, scene, polygon=MultiPolygon([box(30, 40, 50, 60)]))
    assert told == []


def test_a_mask_the_wrong_way_round_is_told(filters: Backbone, scene: Scene) -> None:
    mask = np.ones(scene[0].shape[:2], bool)
    mask[10:40, 10:40] = False
    _, (sentence,) = learned(filters, scene, mask=mask)
    share = 100 * mask.mean()
    assert sentence == (
        f"This covers {share:.0f} % of its image; is it meant to? If it is the ground around the objects, the mask is "
        "the wrong way round: invert it."
    )


@pytest.mark.parametrize("point", [(40, -0.5), (40, 165), (320, 55)])
def test_a_point_on_the_edge_lies_outside(filters: Backbone, scene: Scene, point: tuple[float, float]) -> None:
    height, width = scene[0].shape[:2]
    x, y = (min(point[0], width), height if point[1] == 165 else point[1])
    _, told = learned(filters, scene, point=(x, y))
    assert told == [f"This is left out: its point ({x:g}, {y:g}) lies outside its image ({width} × {height} px)."]


@pytest.mark.parametrize("most_pixels", [WHOLE, IN_PARTS])
def test_what_is_marked_where_nothing_is_displayed_is_left_out(
    filters: Backbone, scene: Scene, most_pixels: int
) -> None:
    image, masks = scene
    told = Told()
    examples = [
        Exemplar(np.zeros_like(image), mask=masks[2].full(), label="This"),
        Exemplar(np.zeros_like(image), mask=masks[3].full(), negative=True, label="That"),
        Exemplar(image, mask=masks[7].full()),
    ]
    found = training_set(examples, filters, Settings(), most_pixels, told)
    assert sorted(told.warnings) == [
        f"{name} is left out: where it lies its image displays one even colour; check the contrast and the channels."
        for name in ("That", "This")
    ]
    assert len(found.frames) == len(found.known) == 1  # else all even images would have these objects
