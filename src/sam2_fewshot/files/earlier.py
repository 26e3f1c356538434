"""The images of earlier results, found again where they are now: the folder may have others besides, or have moved."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sam2_fewshot.annotations.record import printable
from sam2_fewshot.errors import InputError, listed
from sam2_fewshot.images.addresses import is_zarr
from sam2_fewshot.images.image_set import files_of_images
from sam2_fewshot.images.registry import content_of, signatures
from sam2_fewshot.images.source import kind_of
from sam2_fewshot.images.stems import place_of, steps_of
from sam2_fewshot.output.finished import Given

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from sam2_fewshot.images.image_set import ImageSet
    from sam2_fewshot.output.finished import Finished
    from sam2_fewshot.protocols import Progress

_NAMED = 3


def given_of(
    images: ImageSet, found: Sequence[Sequence[object]] | None = None, searched: Iterable[int] = ()
) -> list[Given]:
    """Return what results say of the images that a run is given, by XY.

    Parameters
    ----------
    images
        The images.
    found
        Their signatures; left out, nothing is known of the content.
    searched
        XY of those that are searched.
    """
    contents = [content_of(each) for each in found] if found else [""] * len(images)
    chosen = set(searched)
    return [
        Given(printable("/".join(place_of(image.header))), printable(image.position), content, image.xy in chosen)
        for image, content in zip(images, contents, strict=True)
    ]


def files_again(paths: Sequence[Path], earlier: Finished | None, progress: Progress) -> Sequence[Path]:
    """Return the files of the images that results are of, in the order of the run that made them.

    Parameters
    ----------
    paths
        Files and folders among which they are looked for.
    earlier
        The results; without any, or if they do not say what their run was given, nothing changes.
    progress
        Takes warnings about what is left out.

    Raises
    ------
    InputError
        If none of them is there.
    """
    if earlier is None or not earlier.images:
        return paths
    files = files_of_images(paths, progress)
    files = [path for path in files if is_zarr(path) or kind_of(path) != "missing"] or files
    places = list(dict.fromkeys(each.place for each in earlier.images))
    now = [tuple(map(printable, steps_of(path))) for path in files]
    found = found_again([tuple(place.split("/")) for place in places], now)
    again = dict.fromkeys(files[i] for i in found if i is not None)
    others = [path for path in files if path not in again]
    # Of an OME-Zarr a part may have been given, which is known when it is open.
    parts = [path for path in others if is_zarr(path)]
    if not again and not parts:
        raise _none(earlier.out, [place.rpartition("/")[2] for place in places])
    if len(parts) < len(others):
        names = [path.name for path in others if path not in parts]
        progress.warn(
            f"Left out of the images, because the results in {earlier.out} are not of them: {listed(names, _NAMED)}."
        )
    return [*again, *parts]


def _none(results: Path, names: Sequence[str]) -> InputError:
    return InputError(
        f"None of the images that the results in {results} are of is there ({listed(names, _NAMED)}). Say with "
        "--images where they are, or search others with sam2-fewshot segment."
    )


@dataclass(frozen=True)
class KnownImages:
    """The images that marks lie on, and where each of them is now.

    Parameters
    ----------
    before
        By the XY of the run whose results were marked.
    now
        The XY of each among the images that are given now, None for one that is not among them.
    images
        The images that are given now.
    is_told
        Whether the results say what images they are of; `before` is what is given now where they do not.
    """

    before: Sequence[Given]
    now: Sequence[int | None]
    images: ImageSet
    is_told: bool

    def searched(self, results: Path, progress: Progress) -> list[int]:
        """Return the XY of those that were searched, with a warning about what is not there any more.

        Raises
        ------
        InputError
            If nothing is left.
        """
        names = [each.steps[-1] for each, xy in zip(self.before, self.now, strict=True) if xy is None]
        chosen = [xy for each, xy in zip(self.before, self.now, strict=True) if each.searched and xy is not None]
        if not chosen:
            raise _none(results, names)
        if names:
            progress.warn(
                f"The results in {results} are also of images that are not there any more, and which are passed over: "
                f"{listed(names, _NAMED)}."
            )
        return sorted(chosen)

    def find(self, name: str | None, xy: int) -> int | None:
        """Return which of the images a mark lies on, by its image's name, or by its XY where that does not tell."""
        if name is None:
            return xy if 0 <= xy < len(self.before) else None
        alike = [i for i in self._by_name.get(name.rpartition("/")[2], ()) if self.before[i].is_called(name)]
        return xy if xy in alike else alike[0] if len(alike) == 1 else None

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        """The images by what they are called without folders."""
        found: dict[str, list[int]] = {}
        for i, each in enumerate(self.before):
            found.setdefault(each.title.rpartition("/")[2], []).append(i)
        return found

    def is_replaced(self, xy: int) -> bool:
        """Tell whether an image that is there has another content now."""
        here, content = self.now[xy], self.before[xy].content
        if here is None or not content:
            return False
        return content != content_of(signatures([self.images[here].header])[0])


def known_images(images: ImageSet, earlier: Finished | None) -> KnownImages:
    """Return the images that results are of, those that are given now where the results do not tell."""
    given = [] if earlier is None else earlier.images
    now = given_of(images)
    if not given:
        return KnownImages(now, range(len(images)), images, is_told=False)
    again = found_again([each.steps for each in given], [each.steps for each in now])
    return KnownImages(given, again, images, is_told=True)


def found_again(before: Sequence[tuple[str, ...]], now: Sequence[tuple[str, ...]]) -> list[int | None]:
    """Return which of some paths each of others is now, None for none.

    Paths are the same that end in most of the same steps, in the name at least; of equal ones the first comes first.
    """
    found: list[int | None] = [None] * len(before)
    missing, free = dict(enumerate(before)), dict(enumerate(now))
    for length in range(max(map(len, before), default=0), 0, -1):
        ends: defaultdict[tuple[str, ...], deque[int]] = defaultdict(deque)
        for i, steps in free.items():
            if len(steps) >= length:
                ends[steps[-length:]].append(i)
        for i, steps in list(missing.items()):
            if len(steps) >= length and ends[steps[-length:]]:
                found[i] = here = ends[steps[-length:]].popleft()
                del missing[i], free[here]
    return found
