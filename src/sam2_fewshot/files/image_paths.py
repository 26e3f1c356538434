"""Which of the paths that were given are images: not the results of a run, the examples, or labels of other images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sam2_fewshot.annotations.examples import marked_files
from sam2_fewshot.errors import InputError, listed
from sam2_fewshot.files.results import is_output, results_among
from sam2_fewshot.images.addresses import is_zarr, stem_of
from sam2_fewshot.images.registry import IMAGE_SUFFIXES, example_stems
from sam2_fewshot.images.source import reading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sam2_fewshot.protocols import Progress

_NAMED = 3


def image_paths(paths: Sequence[Path], examples: Path | None, progress: Progress) -> list[Path]:
    """Leave out what a pattern like ``*.tif`` has caught although it is no image.

    Parameters
    ----------
    paths
        Files, folders and addresses; patterns are replaced by what they match.
    examples
        File or folder with the marked examples.
    progress
        Takes a warning about what is left out.

    Raises
    ------
    InputError
        If there is nothing but results of a run.
    """
    return _without_labels(_without_examples(_without_results(paths, progress), examples, progress), progress)


def _without_results(paths: Sequence[Path], progress: Progress) -> list[Path]:
    written = set(results_among(paths))
    written |= {path for path in paths if path not in written and _is_output_alone(path)}
    results = [path for path in paths if path in written]
    images = [path for path in paths if path not in written]
    if results and not images:
        raise InputError(f"There is no image to search: {_names(results)} are results of a run. Give the images.")
    if results:
        progress.warn(f"Left out of the images, because they are results of a run: {_names(results)}.")
    return images


def _is_output_alone(path: Path) -> bool:
    """Return whether a path is an output folder in which there is no image."""
    return is_output(path) and not is_zarr(path) and not _images_in(path)


def _without_examples(paths: Sequence[Path], examples: Path | None, progress: Progress) -> list[Path]:
    if examples is None:
        return list(paths)
    stems = {stem_of(path) for path in paths}
    place = examples.resolve()
    images: list[Path] = []
    left_out: list[Path] = []
    for path in paths:
        real = path.resolve()
        is_label = real.parent == place and stems & set(example_stems(path)[1:])
        is_examples = real == place and not _has_images_beside(path)
        (left_out if is_examples or is_label else images).append(path)
    if not images:  # nothing but the examples was given, and they may be meant
        return list(paths)
    if left_out:
        progress.warn(f"Left out of the images, because the examples are in it: {_names(left_out)}.")
    return images


def _without_labels(paths: Sequence[Path], progress: Progress) -> list[Path]:
    """Leave out files that are named as the labels of an image beside them, as a folder does that is given."""
    images = {(path.parent, stem_of(path)) for path in paths}
    labels = [path for path in paths if any((path.parent, stem) in images for stem in example_stems(path)[1:])]
    left_out = [path for path in labels if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if left_out:
        progress.warn(
            f"Left out of the images, because by the name they are labels of another image: {_names(left_out)}."
        )
    return [path for path in paths if path not in left_out]


def _has_images_beside(path: Path) -> bool:
    """Return whether a folder of examples holds the images that they are named after, too."""
    if is_zarr(path) or not path.is_dir():
        return False
    images = {stem_of(image): image for image in _images_in(path)}
    return any(images.get(stem, file) != file for file in marked_files(path) for stem in example_stems(file))


def _images_in(folder: Path) -> list[Path]:
    with reading(folder):
        return [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES or is_zarr(path)]


def _names(paths: Sequence[Path]) -> str:
    return listed([path.name for path in paths], _NAMED)
