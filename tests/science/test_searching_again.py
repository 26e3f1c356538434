"""What was learned in a viewer is searched with again as long as the pixels are those that it was learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from disc_scenes import discs

from sam2_fewshot import FewShotSegmenter, Location, Settings
from sam2_fewshot.annotations.review import Mark
from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.napari.session import Search, Session
from sam2_fewshot.rendering.viewer import BlendedPlane, Look
from sam2_fewshot.runner.progress import Estimate

if TYPE_CHECKING:
    from disc_scenes import Scene
    from numpy.typing import NDArray

SHAPE = (221, 301)
INDEX = (slice(None), slice(None))


@pytest.fixture
def scene() -> Scene:
    return discs([(40 + 70 * (i % 4), 40 + 70 * (i // 4), 12) for i in range(12)], SHAPE)


def searched(
    session: Session, scene: Scene, pixels: NDArray[Any], white: float = 255, digest: str | None = None
) -> FewShotSegmenter:
    look = Look((0, white), np.linspace([0, 0, 0, 1], [1, 1, 1, 1], 256))
    marks = [Mark((), mask_to_polygon(mask)) for mask in scene[1][:6]]

    def plane(place: tuple[int, ...]) -> BlendedPlane:
        return BlendedPlane([pixels], [look], INDEX, SHAPE, "image", Location(), digest)

    asked = Search(marks, plane, [()], None, "filters", Settings(), None)
    segmenter, *_ = session.search(asked, Estimate(lambda *_: None, lambda _: None, lambda: None))
    assert isinstance(segmenter, FewShotSegmenter)
    return segmenter


@pytest.mark.parametrize("digest", [None, pytest.param("a large image", marks=pytest.mark.slow)])
def test_pixels_that_were_changed_in_place_are_learned_from_anew(scene: Scene, digest: str | None) -> None:
    session, pixels = Session(lambda: None), scene[0][..., 0].copy()
    first = searched(session, scene, pixels, digest=digest).object_model
    assert searched(session, scene, pixels, digest=digest).object_model is first
    assert searched(session, scene, pixels.copy(), digest=digest).object_model is first
    pixels[:] = 255 - pixels
    again = searched(session, scene, pixels, digest=digest).object_model
    fresh = searched(Session(lambda: None), scene, pixels, digest=digest).object_model
    assert again.to_bytes() == fresh.to_bytes() != first.to_bytes()


def test_a_plane_that_looks_otherwise_is_learned_from_anew(scene: Scene) -> None:
    session, pixels = Session(lambda: None), scene[0][..., 0]
    first = searched(session, scene, pixels).object_model
    assert searched(session, scene, pixels, white=200).object_model is not first
