"""Positions of a file: their names, and how many of what are believed.

A file may hold several images: ND2 positions, LIF images, CZI scenes, series of an OME-TIFF, fields of a plate. Each is
an XY position of its own, with its own size, channels, slices and time points.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from sam2_fewshot.errors import InputError, listed
from sam2_fewshot.images.addresses import shown
from sam2_fewshot.images.source import damaged, reading
from sam2_fewshot.resources import mapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from sam2_fewshot.images.source import PixelSource

MOST_POSITIONS = 100_000
"""A plate of 1,536 wells with 65 fields each."""
MOST_CHANNELS = 10_000
"""Of an imaging spectrometer."""
MOST_FRAMES = 200_000
"""Slices times time points of a position: at a second each, two days of work; a label image has a page for each."""
_LISTED = 3


def check_counts(path: Path, channels: int, slices: int, times: int) -> None:
    """Refuse a position with more planes than could ever be searched; a small file can claim any number.

    Raises
    ------
    InputError
        Saying the number.
    """
    if channels > MOST_CHANNELS:
        raise InputError(
            f"{shown(path)} says it has {channels:,} channels; up to {MOST_CHANNELS:,} are read. Export the ones you "
            "need."
        )
    if slices * times > MOST_FRAMES:
        raise InputError(
            f"{shown(path)} says it has {slices:,} slices and {times:,} time points; up to {MOST_FRAMES:,} frames of "
            "an image are read. Its description is damaged, or it has to be cut into several."
        )


def check_positions(path: Path, count: int) -> None:
    """Refuse a file with more positions than are believed.

    Raises
    ------
    InputError
        Saying the number.
    """
    if count > MOST_POSITIONS:
        raise InputError(f"{shown(path)} says it has {count:,} positions; up to {MOST_POSITIONS:,} are read.")


def position_names(labels: Iterable[str | None]) -> tuple[str, ...]:
    """Return a name for each position of a file, no two of them the same in any letter case.

    Parameters
    ----------
    labels
        What the file calls them. ``P1``, ``P2``, … is the name of one without a label; of several with the same label
        each gets its number among them, as in ``Series_1``, ``Series_2``.
    """
    tidied = [" ".join("".join(c if c.isprintable() else " " for c in label or "").split()) for label in labels]
    names = [label or f"P{number}" for number, label in enumerate(tidied, 1)]
    counts = Counter(name.casefold() for name in names)
    taken = {name for name, count in counts.items() if count == 1}
    numbers: Counter[str] = Counter()
    for place, name in enumerate(names):
        key = name.casefold()
        if counts[key] == 1:
            continue
        while True:
            numbers[key] += 1
            own = f"{name}_{numbers[key]}"
            if own.casefold() not in taken:
                break
        taken.add(own.casefold())
        names[place] = own
    return tuple(names)


def step_names(axes: Sequence[str], keys: Sequence[tuple[int, ...]], known: Mapping[int, str]) -> tuple[str, ...]:
    """Return a name for each position that is a step along some axes, of those along which there are several.

    Parameters
    ----------
    axes
        Their letters.
    keys
        For each position its step along each axis, counted from 0.
    known
        What the file calls steps along the first axis; others are as in ``T2``.
    """
    if len(keys) == 1:
        return ("",)
    several = [place for place, steps in enumerate(zip(*keys, strict=True)) if len(set(steps)) > 1]
    labels = []
    for key in keys:
        first = {0: known.get(key[0])}
        labels.append("_".join(first.get(place) or f"{axes[place]}{key[place] + 1}" for place in several))
    return position_names(labels)


def row_letters(row: int) -> str:
    """Return what a plate's row is called, counted from 0: ``A`` to ``Z``, then ``AA`` and so on."""
    letters = ""
    row += 1
    while row > 0:
        row, rest = divmod(row - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def well_name(row: str, column: str) -> str:
    """Return what a well is called, such as ``B03`` for row ``B`` and column ``3``, so that names sort as the wells."""
    return f"{row}{int(column):02d}" if column.isdecimal() and column.isascii() and len(column) < 9 else row + column


def field_names(wells: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """Return a name for each field of a plate: ``B03_f2``, or ``B03`` where each well has one field.

    Parameters
    ----------
    wells
        For each field its well's name, and its number there, counted from 1.
    """
    several = any(number > 1 for _, number in wells)
    return position_names(f"{well}_f{number}" if several else well for well, number in wells)


def opened_positions(
    path: Path,
    opener: Callable[[int], PixelSource],
    names: Mapping[int, str],
    only: int | None = None,
    at_a_time: int | None = 1,
) -> list[PixelSource]:
    """Open the positions of a file that can be read, and say in a warning of the first which cannot.

    Parameters
    ----------
    path
        The file.
    opener
        Opens a position by its number.
    names
        Of the positions, by their numbers; both are put into their headers.
    only
        Open this position alone, by its number.
    at_a_time
        So many are opened at a time; as many as there are threads where it is None.

    Raises
    ------
    InputError
        If there is none, or none can be read: what is wrong with the first.
    """
    numbers = [number for number in names if only in (None, number)]
    if not numbers:
        raise damaged(path, "no image is in it" if only is None else "the image that was there is not any more")

    def opened(number: int) -> PixelSource | InputError:
        try:
            with reading(path):
                source = opener(number)
        except InputError as error:
            return error
        own = number if source.header.path == path else 0  # an image with a path of its own is the only one there
        source.header = replace(source.header, position=names[number], number=own)
        return source

    found: list[PixelSource] = []
    refused: list[tuple[str, InputError]] = []
    for number, result in zip(numbers, mapped(opened, numbers, at_a_time), strict=True):
        if isinstance(result, InputError):
            refused.append((names[number], result))
        else:
            found.append(result)
    if not found:
        raise refused[0][1]
    if refused:
        which = listed([name for name, _ in refused], _LISTED)
        sentence = (
            f"{shown(path)}: {len(refused)} of its {len(numbers)} positions cannot be read and are left out ({which}). "
            f"{refused[0][1]}"
        )
        header = found[0].header
        found[0].header = replace(header, warnings=(*header.warnings, sentence))
    return found
