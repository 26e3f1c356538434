"""A few odd pixels of a frame do not make its objects dim beside those of the examples' frames."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.object_model import ObjectModel
from sam2_fewshot.rendering.contrast import displayed_as
from told import Told

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.images.image_file import FrameFile
    from sam2_fewshot.protocols import Backbone
    from sam2_fewshot.records import FrameReader

Discs = tuple["NDArray[np.uint8]", "NDArray[np.int32]"]
SPECK = np.s_[150:158, 20:32]


@pytest.fixture
def plane(discs: Discs) -> NDArray[np.uint16]:
    """The discs as a camera of 16 bits sees them."""
    return discs[0].mean(axis=2).astype(np.uint16) * 10 + 300


@pytest.fixture
def speck(plane: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The same with a speck of dirt on a third of a hundredth of the frame, twenty times as bright."""
    with_speck = plane.copy()
    with_speck[SPECK] = 40_000
    return with_speck


def frames_of(folder: Path, *planes: NDArray[np.uint16], **options: int) -> list[FrameFile]:
    """The frames of files."""
    for number, plane in enumerate(planes):
        tifffile.imwrite(folder / f"{number}.tif", plane, tile=(64, 64))
    images = open_images([folder / f"{number}.tif" for number in range(len(planes))], Settings(), **options)
    return [image.frame() for image in images]


def nearly(read: NDArray[np.uint8], expected: NDArray[np.uint8]) -> bool:
    """Whether two pictures are the same but at the speck."""
    different = np.abs(read.astype(int) - expected) > 2
    different[SPECK] = False
    return not different.any()


@pytest.mark.parametrize("options", [{}, {"whole_plane": 10}], ids=["whole", "by region"])
def test_a_speck_makes_no_file_dim(
    plane: NDArray[np.uint16], speck: NDArray[np.uint16], options: dict[str, int], tmp_path: Path
) -> None:
    example, frame = frames_of(tmp_path, plane, speck, **options)
    searched = displayed_as(frame, [example.exposures])
    assert nearly(searched.read(), example.read())
    assert np.array_equal(searched.read((20, 30, 90, 70)), searched.read()[30:70, 20:90])
    # Pictures of the frame show it as any viewer does.
    assert frame.read()[:140].max() < 20
    assert np.array_equal(displayed_as(example, [example.exposures]).read(), example.read())
    assert displayed_as(frame, []) is frame


def test_what_is_displayed_as_ever_is_composed_once(
    plane: NDArray[np.uint16], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example, frame = frames_of(tmp_path, plane, plane[::-1])
    searched = displayed_as(frame, [example.exposures])
    searched.read()
    monkeypatch.setattr(frame.image.source, "planes", None)  # reading them again would fail
    assert np.array_equal(frame.read(), searched.read())


def test_a_frame_of_several_channels_is_compared_channel_by_channel(
    plane: NDArray[np.uint16], speck: NDArray[np.uint16], tmp_path: Path
) -> None:
    other = plane.T[:160, :160] + np.uint16(5000)
    for name, first in (("a", plane), ("b", speck)):
        content = np.stack([first[:, :160], other])
        tifffile.imwrite(tmp_path / f"{name}.tif", content, metadata={"axes": "CYX"}, ome=True)
    example, frame = (image.frame() for image in open_images([tmp_path / "a.tif", tmp_path / "b.tif"], Settings()))
    assert len(frame.exposures) == 2
    assert nearly(displayed_as(frame, [example.exposures]).read(), example.read())


def test_objects_beside_a_speck_are_found(
    filters: Backbone, discs: Discs, plane: NDArray[np.uint16], speck: NDArray[np.uint16]
) -> None:
    _, labels = discs
    segmenter = FewShotSegmenter(filters)
    segmenter.fit([Exemplar(plane, mask=labels == number) for number in range(1, 6)])
    alone, beside = (segmenter.segment(image[:, ::-1]) for image in (plane, speck))
    assert len(alone) >= 7
    assert len({item.bbox for item in alone} & {item.bbox for item in beside}) >= 6
    again = FewShotSegmenter(filters).adopt_saved(segmenter.object_model.to_bytes())
    assert [item.bbox for item in again.segment(speck[:, ::-1])] == [item.bbox for item in beside]


def test_exposures_are_saved(filters: Backbone, discs: Discs, plane: NDArray[np.uint16]) -> None:
    image, labels = discs
    segmenter = FewShotSegmenter(filters, progress=Told())
    frames = ((plane, labels), (image[::-1], labels[::-1]))
    segmenter.fit([Exemplar(pixels, mask=marks == number) for pixels, marks in frames for number in (1, 3, 5)])
    objects = segmenter.object_model
    assert len(objects.exposures) == 2
    read = ObjectModel.from_bytes(objects.to_bytes())
    assert list(read.exposures) == list(objects.exposures)
    nothing = (None, objects.exposures[0][0])
    read = ObjectModel.from_bytes(replace(objects, exposures=[nothing, objects.exposures[1]]).to_bytes())
    assert list(read.exposures) == [nothing, objects.exposures[1]]


def test_a_reader_that_knows_no_intensities_is_searched_as_it_is(discs: Discs) -> None:
    class Own:
        """A user's reader."""

        name, location, shape = "own", None, (160, 200)

        def read(self, region: object = None) -> NDArray[np.uint8]:
            return discs[0]

    reader: FrameReader = Own()  # type: ignore[assignment]
    assert displayed_as(reader, [(None,)]) is reader
