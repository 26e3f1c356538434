"""Names of image files and addresses on the web, and ranges of numbers as a user types them."""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from typing import TYPE_CHECKING

from sam2_fewshot.errors import InputError, SettingsError, listed
from sam2_fewshot.settings import quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

DOUBLE_SUFFIX = re.compile(r"\.(ome|companion|lsm|cziexport)$", re.IGNORECASE)
"""What stands before the suffix and is not a part of the name, as in ``a.ome.tif``."""
_ADDRESS = re.compile(r"(https?|s3):/+(.+)")
_WEB = re.compile(r"(?P<scheme>https?)://(?:(?P<login>[^/]*)@)?(?P<place>[^?]*)(?P<query>\?.*)?", re.DOTALL)
_ZARR_FILES = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
_UNSAFE = re.compile(r"[^\w\-.+ ]+")
_RANGE = re.compile(r"(?:(all)|([0-9]+)(?:\s*[-\u2013]\s*([0-9]+))?)(?:\s*:\s*([0-9]+))?", re.IGNORECASE)
"""``all``, a number, or two of them with a dash; then perhaps a step."""
_COMMA = re.compile("[,，]")  # also as East Asian keyboards write it
_LONGEST_NUMBER = 40
_LISTED = 8


def natural_key(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Return a key that sorts ``a2`` before ``a10``."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], path.name


def composed(text: str) -> str:
    """Return a name with its accents in the letters, as they are typed; macOS writes some names with them behind."""
    return unicodedata.normalize("NFC", text)


def stem_of(path: Path) -> str:
    """Return a file's name without its suffix, composed: ``a`` for ``a.png`` and for ``a.ome.tif``."""
    return composed(DOUBLE_SUFFIX.sub("", path.stem) or path.stem)


def position_stem(file: str, position: str) -> str:
    """Return the stem of a position: that of its file, and the position's name in letters that file names take."""
    return f"{file}_{_UNSAFE.sub('_', position)}" if position else file


def shown(path: Path) -> str:
    """Return what to call a file in messages: its name, or from the outermost Zarr on, as in ``p.zarr/B/3/0``."""
    parts = path.parts
    outer = next((n for n, part in enumerate(parts) if part.lower().endswith(".zarr")), len(parts) - 1)
    return "/".join(parts[outer:]) or path.name


def remote(path: Path | str) -> str | None:
    """Return the address that a path stands for, None when it is a file or folder."""
    match = _ADDRESS.fullmatch(path if isinstance(path, str) else path.as_posix())
    return f"{match[1]}://{match[2]}" if match else None


def whole_path(path: Path) -> Path:
    """Return a file's or folder's path from the root on; one that stands for an address stays as it is."""
    return path if remote(path) is not None else path.absolute()


def image_title(name: str, position: str) -> str:
    """Return what to call an image: its file's name, and the position's where the file has several."""
    return f"{name} {position}" if position else name


def check_address(path: Path) -> None:
    """Refuse a path that stands for an address with a secret in it: it would be written into the results, and printed.

    Raises
    ------
    InputError
        If it has a name or password before the host, or a query, such as a signature.
    """
    web = _WEB.fullmatch(remote(path) or "")
    if web is None:
        return
    plain = f"{web['scheme']}://{web['place']}"
    if web["login"] is not None:
        raise InputError(
            f"The address of {plain} has a user name or password in it, which the results would show to everybody; "
            "leave it out, and write it into the file .netrc in your home folder, as in: machine "
            f"{web['place'].partition('/')[0].partition(':')[0]} login NAME password PASSWORD."
        )
    if web["query"] is not None:
        raise InputError(
            f"The address of {plain} has a question mark in it; what follows, such as a signature, holds for one file, "
            "and an OME-Zarr is many. Leave it out, or give an s3:// address and its keys (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)."
        )


def holds_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr group or array."""
    return any((path / name).is_file() for name in _ZARR_FILES)


def is_zarr(path: Path) -> bool:
    """Tell whether a path is taken for an OME-Zarr: a folder that is one, or any address."""
    if remote(path) is not None:
        return True
    try:
        return path.is_dir() and holds_zarr(path)
    except (OSError, ValueError):  # not a possible name; opening it gives the message
        return False


def parse_range(
    text: str | None,
    count: int,
    field: str,
    names: Sequence[Collection[str]] = (),
) -> tuple[int, ...]:
    """Turn what a user typed into indices.

    Parameters
    ----------
    text
        Numbers and inclusive ranges as a user counts, from 1, with commas between: ``"1-3, 5-8"``. A range may have a
        step: ``"1-20:2"`` is every second from 1. ``"all"`` (in any case, alone or as one of the parts) means
        everything, and so does an empty or missing text.
    count
        How many there are; the highest number allowed.
    field
        Name of the field, for messages.
    names
        Of each, all that it is called by. A part that is no number or range is then a pattern for names, in any letter
        case: ``*`` stands for any letters, ``?`` for one and ``[ab]`` for one of some, so ``"B0*"`` is a plate's row.
        A name itself goes before that, also one with commas where it is all of the text.

    Returns
    -------
    tuple of int
        Counted from 0, sorted, each once.

    Raises
    ------
    SettingsError
        For anything else. Nothing is dropped in silence: a number that does not exist is refused too.
    """
    if text is None or not text.strip():
        return tuple(range(count))
    if _COMMA.search(text) and (called := _called(text.strip(), names)):
        return tuple(called)
    parts = [part.strip() for part in _COMMA.split(text) if part.strip()]
    if not parts:
        raise _error(text, field, "has no number", count)
    chosen: set[int] = set()
    for part in parts:
        if names and _RANGE.fullmatch(part) is None:
            chosen.update(_named(part, names, field))
        else:
            chosen.update(_part(part, count, field))
    return tuple(sorted(chosen))


def _part(part: str, count: int, field: str) -> range:
    found = _RANGE.fullmatch(part)
    if found is None:
        raise _error(part, field, "is not a number or a range", count)
    word, begin, end, by = found.groups()
    if max(len(group or "") for group in found.groups()) > _LONGEST_NUMBER:
        raise _error(part, field, "does not exist", count)
    step = int(by) if by else 1
    if step < 1:
        raise SettingsError(f"{field}: {part!r} has the step 0; a step is 1 or more, such as '1-{count}:2'.")
    if word:
        return range(0, count, step)
    first = int(begin)
    last = int(end) if end else first
    if first > last:
        raise SettingsError(f"{field}: {part!r} runs backwards; write '{last}-{first}'.")
    if by and not end:
        raise SettingsError(f"{field}: {part!r} has a step but no range; write '{first}-{count}:{step}'.")
    if first < 1 or last > count:
        raise _error(part, field, "does not exist", count)
    return range(first - 1, last, step)


def _called(name: str, names: Sequence[Collection[str]]) -> list[int]:
    """Return what is called so, in any letter case."""
    return [place for place, own in enumerate(names) if _key(name) in map(_key, own)]


def _named(part: str, names: Sequence[Collection[str]], field: str) -> list[int]:
    """Return what is called so, or else what a pattern fits."""
    pattern = re.compile(fnmatch.translate(_key(part)))
    found = _called(part, names) or [
        place for place, own in enumerate(names) if any(pattern.fullmatch(_key(name)) for name in own)
    ]
    if not found:
        known = [next(iter(own)) for own in names]
        raise SettingsError(
            f"{field}: {quoted(part)} is not a number or a range, and no position or image is called so; there "
            f"{'is' if len(known) == 1 else 'are'} {listed(known, _LISTED)}. Give numbers (1-{len(known)}), names, or "
            "a pattern such as 'B0*'."
        )
    return found


def _key(name: str) -> str:
    return composed(name).casefold()


def _error(part: str, field: str, problem: str, count: int) -> SettingsError:
    if count == 1:
        return SettingsError(f"{field}: {quoted(part)} {problem}; only 1 is valid here, so leave it out or give 'all'.")
    return SettingsError(f"{field}: {quoted(part)} {problem}; 1-{count} is valid here, as '1', '1-{count}' or 'all'.")
