"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import codecs
import errno
import os
import re
import secrets
import shutil
import stat
import time
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import InputError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


MAX_YAML_BYTES = 1_000_000
"""Longest YAML file of a user's that is read; a real one has some hundred bytes."""
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ABANDONED = 3600  # s
_OF_DISK = {
    errno.EROFS: ("its disk can only be read", "it can be written"),
    errno.EIO: ("input/output error", "its disk works"),
}
_FORBIDDEN = {errno.EACCES, errno.EPERM}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, which takes its name when the block ends well.

    The folder is made when it is missing, and swept when this process first writes there. When the block fails, the
    temporary file is removed and whatever was under the name before stays as it was, also after a power failure.

    Yields
    ------
    Path
        Where to write. Its ending is ``.part``, its name starts with a dot.

    Raises
    ------
    InputError
        If the file cannot be written; the :class:`OSError` is its cause.
    """
    if not path.name:
        raise InputError(f"{path} is a folder; name the file that is to be written.")
    temporary = _temporary(path)
    with telling(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep_once(path.parent.absolute())
            yield temporary
            _flush(temporary)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        with suppress(OSError):  # Windows cannot open a folder; the file itself is safe by then
            _flush(path.parent)


_TEMPORARY = re.compile(r"\.[0-9a-f]{16}-.*\.part", re.DOTALL)
"""Names of :func:`_temporary`. They lie in folders of the user's too, so no name that others give may be like them."""
_OF_NAME = 40
"""So many characters of the end of a file's name are in them."""


def _temporary(path: Path) -> Path:
    """Return a name beside `path` that no other process, thread or file has; the whole of a long name may not fit."""
    return path.with_name(f".{secrets.token_hex(8)}-{path.name[-_OF_NAME:]}.part")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises
    ------
    InputError
        As :func:`replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` for a folder, which takes its name when the block ends well.

    As :func:`replacing`, but that a moment passes in which neither the old folder nor the new one is there. A process
    that is killed in it leaves none: the old one may be of results that the next run has not.

    Yields
    ------
    Path
        Where to make the folder.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    temporary, old = _temporary(path), _temporary(path)
    with telling(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep_once(path.parent.absolute())
            yield temporary
            if path.is_dir():
                path.replace(old)
                os.utime(old)  # whoever sweeps this folder now takes it for what it is
            temporary.replace(path)
        finally:
            if not path.exists():
                with suppress(OSError):
                    old.replace(path)
            for folder in (temporary, old) if path.exists() else (temporary,):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replacing_together(folder: Path, check: Callable[[Path], None], named: Path | None = None) -> Iterator[Path]:
    """Give a temporary folder, from which all files and folders come into `folder` when the block ends well.

    A folder that is missing appears with all of them. In one that is there, or has come meanwhile, each takes its place
    as with :func:`replacing` and :func:`replacing_folder`; where one cannot, those that were not there before are
    removed.

    Parameters
    ----------
    folder
        Where they belong.
    check
        Is called with the place of each before the first comes there; what it raises is raised, and nothing is written.
    named
        What an error says that cannot be written; `folder` when left out.

    Yields
    ------
    Path
        Where to write. It is there.

    Raises
    ------
    InputError
        If they cannot be written. Errors in the block, too, call files as they are called in `folder`.
    """
    temporary = _temporary(folder / "together" if folder.exists() else folder)
    with telling(named or folder.absolute()):
        try:
            temporary.mkdir(parents=True)
            _sweep_once(temporary.parent.absolute())
            with _called_as_in(folder, temporary):
                yield temporary
            if folder.exists():
                _put_in_place(temporary, folder, check)
            else:
                temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _called_as_in(folder: Path, temporary: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        within = "" if folder == Path() else f"{folder}{os.sep}"
        raise InputError(str(error).replace(f"{temporary}{os.sep}", within)) from error.__cause__


def _put_in_place(temporary: Path, folder: Path, check: Callable[[Path], None]) -> None:
    new = []
    paths = sorted(temporary.iterdir())
    for path in paths:
        check(folder / path.name)
    try:
        for path in paths:
            target = folder / path.name
            if not target.exists():
                new.append(target)
            with (replacing_folder if path.is_dir() else replacing)(target) as place:
                path.replace(place)
    except BaseException:
        for target in new:
            with suppress(OSError):
                remove(target)
        raise


def remove(path: Path) -> None:
    """Delete a file, a link or a folder with all that is in it, so that no part of the folder stays under its name.

    What a process that is killed leaves of a folder is one for :func:`sweep`.

    Raises
    ------
    OSError
        If it is not there or cannot be deleted.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path if _TEMPORARY.fullmatch(path.name) else path.replace(_temporary(path)))


def sweep(folder: Path) -> None:
    """Remove files and folders that killed runs left half written, unless they were touched within the last hour."""
    with suppress(OSError):
        for path in (path for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name)):
            with suppress(OSError):
                touched = max(each.stat().st_mtime for each in (path, *path.rglob("*")))
                if time.time() - touched > _ABANDONED:
                    remove(path)


@lru_cache(maxsize=1000)
def _sweep_once(folder: Path) -> None:
    sweep(folder)


def check_free(path: Path, overwrite: bool, is_own: Callable[[Path], bool] = lambda folder: False) -> None:
    """Refuse to write over what is there, which may be the user's.

    Parameters
    ----------
    path
        The file to write.
    overwrite
        Whether it may be replaced.
    is_own
        Tells whether a folder is one that this program wrote; others are never replaced.

    Raises
    ------
    InputError
        If something is there.
    """
    if path.is_dir() and not is_own(path):
        raise InputError(f"{path} is there already and is a folder; give another name, or delete it first.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already; give another name, or --overwrite.")


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder in place of ``~``; the ``~name`` of nobody stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def refuse_device(path: Path) -> None:
    """Refuse a device or a pipe, which a reader would wait for; whatever else is wrong is left to the reader.

    Raises
    ------
    InputError
        If it is one.
    """
    with suppress(OSError, ValueError):  # a name with a null byte
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise InputError(f"{path} is not a file.")


def read_whole(path: Path) -> bytes | None:
    """Return the content of a file that a run wrote, None where there is none.

    Raises
    ------
    InputError
        If it is a device or a pipe, or if the file may be whole, but the system does not read it; only that has a
        cause.
    """
    refuse_device(path)
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"{path} cannot be read: {reason}. Run the same command again when it can; where its disk has lost it for "
            "good, delete it first."
        ) from error


def read_yaml_text(path: Path, what: str) -> str:
    """Return the text of a YAML file that a user wrote, in UTF-8 or in UTF-16, as PowerShell 5 writes it with ``>``.

    Parameters
    ----------
    path
        The file.
    what
        What to call it in messages, such as ``settings file``.

    Raises
    ------
    SettingsError
        If it is not there, too large, or no text.
    InputError
        If it is a device or a pipe.
    """
    refuse_device(path)
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise SettingsError(f"{path} is too large for a {what} (more than {MAX_YAML_BYTES // 10**6} MB).")
        with path.open("rb") as file:
            encoding = "utf-16" if file.read(2) in _UTF16 else "utf-8-sig"
        return path.read_text(encoding)
    except OSError as error:
        raise SettingsError(f"The {what} {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SettingsError(f"The {what} {path} is not a text file in UTF-8; save it as one.") from None


def parse_yaml(text: str, name: str) -> Any:
    """Return what the text of a YAML file says.

    Parameters
    ----------
    text
        The file's.
    name
        What to call the file in messages.

    Raises
    ------
    SettingsError
        If it is not YAML.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        raise SettingsError(f"{name} is not valid YAML{where}.") from None


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Turn an :class:`OSError` into a sentence that names `path`.

    Raises
    ------
    InputError
        Instead of the error.
    """
    try:
        yield
    except OSError as error:
        raise InputError(_sentence(path, error)) from error


def _flush(path: Path) -> None:
    """Make the system write a file or folder to the disk now."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sentence(path: Path, error: OSError) -> str:
    if error.errno in _FULL:
        return f"The disk is full: {path} could not be written. Free some space and run the same command again."
    if error.errno in _FORBIDDEN:
        return (
            f"{path} could not be written: permission denied. Close the file if another program has it open, or see "
            "that you may write into this folder."
        )
    if error.errno in _OF_DISK:
        what, how = _OF_DISK[error.errno]
        return f"{path} could not be written: {what}. See that {how}, and run the same command again."
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    return f"{path} could not be written: {reason}. Choose another output folder."
