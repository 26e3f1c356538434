"""Image files as XY positions of a dataset. Opening reads headers only; pixels come when a frame is read."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sam2_fewshot.errors import InputError, listed, were
from sam2_fewshot.images.addresses import is_zarr, natural_key, position_stem, stem_of
from sam2_fewshot.images.display import display_of
from sam2_fewshot.images.image_file import LARGE, ImageFile, LastPlane
from sam2_fewshot.images.registry import FORMATS, IMAGE_SUFFIXES, example_stems, is_companion, open_positions
from sam2_fewshot.images.source import kind_of, reading
from sam2_fewshot.images.stems import full_names_of, safe_stems
from sam2_fewshot.protocols import Quiet

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from sam2_fewshot.images.display import ChannelSetting
    from sam2_fewshot.images.image_file import FrameFile
    from sam2_fewshot.images.source import Header, PixelSource
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Location
    from sam2_fewshot.settings import Settings

_MOST_WARNINGS = 3
"""So many warnings of one file are issued one by one."""
_FEW = 20
"""So many files are opened without a word; headers of more may take long, on a share many minutes."""
_FORMAT_NAMES = ", ".join(known.names for known in FORMATS[:-1]) + f" and {FORMATS[-1].names}"


def open_images(
    paths: Iterable[Path | str] | Path | str,
    settings: Settings,
    channels: Sequence[ChannelSetting] | None = None,
    progress: Progress | None = None,
    whole_plane: int = LARGE,
) -> ImageSet:
    """Open all image files before any heavy work.

    Parameters
    ----------
    paths
        A file, or files in the order of their XY positions. A folder stands for the image files in it, in natural
        order; other files in it are passed over with a warning, and so are label images beside their images and
        folders with images in it.
        A file given twice is taken once, with a warning.
    settings
        Gives the percentiles of black and white.
    channels
        How to display channels (:func:`~sam2_fewshot.images.display.read_channels`). A colour photo then counts
        as three channels named red, green and blue.
    progress
        Takes the warnings, and how far it is where there are many files.
    whole_plane
        Pixels; a larger frame is read by region, where its file allows it.

    Raises
    ------
    InputError
        If there is no image, or if one is missing, damaged, too large, or of a kind that cannot be read.
    SettingsError
        If `channels` names a channel that an image does not have.
    """
    progress = progress or Quiet()
    files = files_of_images([paths] if isinstance(paths, Path | str) else paths, progress)
    if not files:
        raise InputError("No image was given; name at least one image file or a folder with images.")
    sources: list[PixelSource] = []
    parts: set[str] = set()
    watched = progress if len(files) > _FEW else Quiet()
    watched.start("opening images", len(files))
    for path in files:
        watched.advance()
        if parts and os.path.realpath(path) in parts:  # a file of a set that was opened by another one
            continue
        found = open_positions(path)
        _warn_of(found, progress)
        sources += found
        parts.update(os.path.realpath(part) for source in found for part in source.header.parts)
    return images_of(sources, stems_of([source.header for source in sources]), settings, channels or (), whole_plane)


def files_of_images(paths: Iterable[Path | str], progress: Progress) -> list[Path]:
    """Return the files that :func:`open_images` opens, each once."""
    seen: dict[str, Path] = {}
    for path in _expand(paths, progress):
        real = os.path.realpath(path)
        if real in seen:
            progress.warn(f"{path} was given twice; it is taken once.")
        else:
            seen[real] = path
    return list(seen.values())


def stems_of(headers: Sequence[Header]) -> tuple[str, ...]:
    """Return what to call the results of each image: ``a`` for ``a.tif``, ``p_B03_f2`` for a field of ``p.zarr``."""
    stacks = [each.size_z * each.size_t > 1 for each in headers]
    return safe_stems([position_stem(stem_of(Path(each.file_name)), each.position) for each in headers], stacks)


def _warn_of(sources: Sequence[PixelSource], progress: Progress) -> None:
    """Issue the warnings about the positions of a file, not all where a whole plate has the same."""
    sentences = list(dict.fromkeys(sentence for source in sources for sentence in source.header.warnings))
    most = _MOST_WARNINGS if len(sentences) > _MOST_WARNINGS + 1 else len(sentences)
    for sentence in sentences[:most]:
        progress.warn(sentence)
    if len(sentences) > most:
        name = sources[0].header.file_name
        progress.warn(f"{name}: {len(sentences) - most} more warnings of this kind about its other positions.")


def images_of(
    sources: Sequence[PixelSource],
    stems: Sequence[str],
    settings: Settings,
    channels: Sequence[ChannelSetting] = (),
    whole_plane: int = LARGE,
) -> ImageSet:
    """Return the set of images that are open; see :func:`open_images`.

    Parameters
    ----------
    sources
        Where the pixels come from, by XY.
    stems
        What to call the results of each; no two are the same.
    settings, channels, whole_plane
        As there.
    """
    cache = LastPlane()
    images = []
    full_names = full_names_of([source.header for source in sources])
    for xy, (source, stem, full_name) in enumerate(zip(sources, stems, full_names, strict=True)):
        display = partial(display_of, source.header, channels, settings)
        images.append(ImageFile(xy, stem, full_name, source, display, cache, whole_plane))
        if not source.header.position:  # of several positions perhaps only some are searched
            _ = images[-1].display
    return ImageSet(images)


class ImageSet(tuple["ImageFile", ...]):
    """The images that were given; the index is the XY position."""

    __slots__ = ()

    def let_go(self) -> None:
        """Give back the memory of the frame that was read whole last; it is read again when it is asked for."""
        for image in self:
            image.let_go()

    def has(self, location: Location) -> bool:
        """Tell whether there is a frame at a location."""
        return 0 <= location.xy < len(self) and self[location.xy].has(location.z, location.time)

    def frame(self, location: Location) -> FrameFile:
        """Return the frame at a location; the same object each time.

        Raises
        ------
        IndexError
            If there is none.
        """
        return self[location.xy].frame(location.z, location.time)

    def absence(self, location: Location) -> str:
        """Return where an object lies for which there is no frame, as in *object 3 was left out: on …*."""
        if not 0 <= location.xy < len(self):
            given = were(len(self), "image")
            return f"on an image that was not given (XY {location.xy}, counted from 0; {given})"
        name = self[location.xy].name
        return f"on Z {location.z} at time {location.time} (counted from 0), which {name} does not have"


def _expand(paths: Iterable[Path | str], progress: Progress) -> Iterator[Path]:
    given = [*map(Path, paths)]
    for path in given:
        if is_zarr(path) or kind_of(path) != "folder":
            yield path
            continue
        with reading(path):
            found = sorted((file for file in path.iterdir() if not file.name.startswith(".")), key=natural_key)
        images = [file for file in found if _is_image(file)]
        stems = {stem_of(file) for file in images}
        labels = [file for file in images if stems & set(example_stems(file)[1:])]
        folders = [folder for folder in found if folder not in images and folder not in given]
        inside = [folder for folder in folders if _has_other_images(folder, stems)]
        if not images and inside:
            raise InputError(f"There is no image in the folder {path} itself. {_give_as_well(inside)}")
        if not images:
            raise InputError(
                f"There is no image in the folder {path} ({len(found)} other files); {_FORMAT_NAMES} are read."
            )
        if inside:
            progress.warn(f"{path} has folders with images in it, which were passed over. {_give_as_well(inside)}")
        others = [file for file in found if file.is_file() and file not in images and not is_companion(file)]
        _warn_skipped(path, others, "not an image", progress)
        _warn_skipped(path, labels, "labels of another image, by the name", progress)
        yield from (file for file in images if file not in labels)


def _is_image(file: Path) -> bool:
    return is_zarr(file) or (file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())


def _has_other_images(folder: Path, stems: Collection[str]) -> bool:
    """Tell whether a folder has images in it that are not named after those beside it, as label images are."""
    try:
        files = [file for file in folder.iterdir() if not file.name.startswith(".")] if folder.is_dir() else []
    except OSError:  # nobody has asked for it
        return False
    return any(_is_image(file) and not any(stem in stems for stem in example_stems(file)) for file in files)


def _give_as_well(inside: Sequence[Path]) -> str:
    names = listed([str(folder) for folder in inside], 3)
    return f"The folders in a folder are not searched; to search these, give them by their names: {names}."


def _warn_skipped(folder: Path, files: list[Path], why: str, progress: Progress) -> None:
    if files:
        names = listed([file.name for file in files], 3)
        progress.warn(f"{were(len(files), 'file')} passed over in {folder} ({why}): {names}.")
