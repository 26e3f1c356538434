"""Images and examples at the edge of sense: a sentence or a result, never a traceback and never NaN as a score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from sam2_fewshot import Exemplar, FewShotSegmenter, Frame, InputError, Settings
from sam2_fewshot.rendering.channels import as_reader
from told import Told

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone

Discs = tuple["NDArray[np.uint8]", "NDArray[np.int32]"]

METHODS = [Settings(), Settings(method="grid", points_per_side=16)]


@pytest.fixture(scope="module", params=METHODS, ids=lambda settings: settings.method)
def segmenter(request: pytest.FixtureRequest, filters: Backbone) -> FewShotSegmenter:
    return FewShotSegmenter(filters, settings=request.param, progress=Told())


@pytest.fixture(scope="module")
def fitted(segmenter: FewShotSegmenter, filters: Backbone, discs: Discs) -> FewShotSegmenter:
    """A segmenter of its own, which stays as it has learned."""
    image, labels = discs
    fitted = FewShotSegmenter(filters, settings=segmenter.settings, progress=Told())
    return fitted.fit([Exemplar(image, mask=labels == number) for number in (1, 3, 5)])


def scores(segmenter: FewShotSegmenter, image: NDArray[np.generic] | Frame) -> NDArray[np.float64]:
    result = segmenter.predict(image)
    return np.array([(item.score, item.similarity) for item in (*result.detections, *result.below)]).reshape(-1, 2)


def disc(height: int, width: int, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:height, :width]
    inside: NDArray[np.bool_] = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < radius**2
    return inside


def test_frames_of_one_colour_are_searched(fitted: FewShotSegmenter) -> None:
    for even in (np.full((90, 120), 7, np.uint8), np.zeros((64, 64, 3), np.uint8), np.full((50, 50), 3.5)):
        assert np.isfinite(scores(fitted, even)).all()


@pytest.mark.parametrize(("number", "said"), [(1, "The example cannot be"), (3, "None of the 3 examples can be")])
def test_nothing_is_learned_from_frames_of_one_colour(
    segmenter: FewShotSegmenter, discs: Discs, number: int, said: str
) -> None:
    even, labels = np.full((160, 200), 9, np.uint8), discs[1]
    with pytest.raises(InputError, match=f"{said} learned from"):
        segmenter.fit([Exemplar(even, mask=labels == each) for each in range(1, number + 1)])


def test_a_point_on_a_frame_of_one_colour_is_no_accident(segmenter: FewShotSegmenter) -> None:
    even = np.full((60, 60), 5, np.uint8)
    said = ""
    try:  # whether there is something depends on the backbone
        segmenter.fit([Exemplar(even, point=(30.0, 30.0))])
    except InputError as error:
        said = str(error)
    assert "be learned from" in said or np.isfinite(scores(segmenter, even)).all()


def test_an_object_may_fill_its_frame(segmenter: FewShotSegmenter, discs: Discs) -> None:
    image, labels = discs
    whole = np.ones(labels.shape, bool)
    segmenter.fit([Exemplar(image, mask=whole)])
    assert np.isfinite(scores(segmenter, image)).all()
    segmenter.fit([Exemplar(image, mask=whole), Exemplar(image[:40, :40], mask=whole[:40, :40], negative=True)])
    assert np.isfinite(scores(segmenter, image)).all()


def test_an_object_may_be_larger_than_the_models_input(segmenter: FewShotSegmenter) -> None:
    inside = disc(170, 210, 70)
    image = np.where(inside, 180, 40).astype(np.uint8)
    segmenter.fit([Exemplar(image, mask=inside)])
    assert np.isfinite(scores(segmenter, image[::-1, :120])).all()


def test_nan_and_infinity_are_looked_past(segmenter: FewShotSegmenter, discs: Discs) -> None:
    image, labels = discs
    rough = image[..., 0].astype(np.float64)
    rough[:9], rough[20:25, 30:50], rough[80, 60], rough[84, 160] = np.nan, np.inf, -np.inf, 3e300
    segmenter.fit([Exemplar(rough, mask=labels == number) for number in (1, 3, 5)])
    assert np.isfinite(scores(segmenter, rough)).all()
    assert np.isfinite(scores(segmenter, np.repeat(rough[..., None], 3, axis=2))).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_masked_pixels_count_as_nan_does(dtype: type[np.generic], discs: Discs) -> None:
    grey = discs[0][..., 0].astype(dtype)
    hidden = np.zeros(grey.shape, bool)
    hidden[:9] = True
    grey[hidden] = 255 if dtype == np.uint8 else 60_000
    masked = np.ma.array(grey, mask=hidden)
    found = as_reader(masked, Settings()).read()
    assert np.array_equal(found, as_reader(np.where(hidden, np.nan, grey), Settings()).read())
    assert np.array_equal(as_reader(masked[..., None], Settings()).read(), found)
    photo = np.ma.stack([masked] * 3, axis=-1)
    assert np.array_equal(as_reader(photo, Settings()).read(), found)
    assert np.array_equal(as_reader(np.ma.array(grey), Settings()).read(), as_reader(grey, Settings()).read())
    several = np.ma.array(np.dstack([grey] * 4), mask=False)
    several[-1, -1] = 0
    several[0, 0] = np.ma.masked
    with pytest.raises(InputError, match="fourth channel differs"):
        as_reader(several, Settings())


@pytest.mark.parametrize("value", [0, 65535])
def test_a_padded_frame_is_searched_as_the_frame_alone(value: int, discs: Discs) -> None:
    plane = discs[0].mean(axis=2).astype(np.uint16) * 10 + 3000  # with a camera's offset
    padded = np.pad(plane, ((0, 40), (60, 0)), constant_values=value)
    alone, part = (as_reader(image, Settings()).read() for image in (plane, padded))
    assert np.abs(part[:-40, 60:].astype(int) - alone).max() <= 3
    assert (part[:, :60] == (255 if value else 0)).all()


def test_nothing_finite_is_told(segmenter: FewShotSegmenter, discs: Discs) -> None:
    with pytest.raises(InputError, match="no finite value"):
        segmenter.fit([Exemplar(np.full((160, 200), np.inf), mask=discs[1] == 1)])


@pytest.mark.parametrize("empty", [np.zeros((0, 5)), np.zeros((5, 0, 3), np.uint8)])
@pytest.mark.parametrize("as_reader", [True, False])
def test_an_empty_frame_is_told(
    segmenter: FewShotSegmenter, fitted: FewShotSegmenter, empty: NDArray[np.generic], as_reader: bool
) -> None:
    image: NDArray[np.generic] | Frame = Frame(np.zeros((*empty.shape[:2], 3), np.uint8)) if as_reader else empty
    with pytest.raises(InputError, match="no pixel"):
        segmenter.fit([Exemplar(image, mask=np.zeros(empty.shape[:2], bool))])
    with pytest.raises(InputError, match="no pixel"):
        segmenter.fit([Exemplar(image, point=(0.0, 0.0))])
    with pytest.raises(InputError, match="no pixel"):
        fitted.segment(image)


@pytest.mark.parametrize("side", [1, 2])
def test_examples_too_small_to_be_found_are_told(filters: Backbone, side: int) -> None:
    image, masks = np.full((64, 64), 40, np.uint8), []
    for x in range(8, 56, 12):
        masks.append(np.zeros(image.shape, bool))
        masks[-1][30 : 30 + side, x : x + side] = True
        image[masks[-1]] = 200
    told = Told()
    segmenter = FewShotSegmenter(filters, settings=Settings(min_mask_area=0), progress=told)
    segmenter.fit([Exemplar(image, mask=mask) for mask in masks])
    sentences = [sentence for sentence in told.warnings if "nothing like the examples is found" in sentence]
    assert len(sentences) == (side == 1)
    if sentences:
        assert sentences[0].startswith("The largest example has 1 px, but what has fewer than 6 px has no shape")
        assert not len(scores(segmenter, image))
