"""How a program ends: the errors that a user can meet, words for sentences and commands, exit codes, and SIGTERM.

Every message is a sentence to a biologist: what is wrong, with which value, and what to do about it. The command line
prints the message alone; a traceback means a defect in this program.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import threading
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

DONE, FAILED, WRONG_INPUT = 0, 1, 2
"""Exit codes: all done; failed or stopped part-way, what is finished stays; wrong usage or input, and nothing done."""
PIPE_CLOSED = 141
"""The exit code of a program that SIGPIPE (13) ends, as shells count it."""
_CONTROLS = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0))}


class FewShotError(Exception):
    """Base of all errors that this package raises on purpose."""


class SettingsError(FewShotError):
    """A setting has a value that cannot be used."""


class InputError(FewShotError):
    """An image, an example or a path that was given cannot be used."""


class CheckpointError(FewShotError):
    """A SAM 2 checkpoint is missing, damaged, or does not fit."""


class ServerError(FewShotError):
    """A server did not answer, or answered with an error."""


class FewShotWarning(UserWarning):
    """Something the user should know although the work goes on."""


def needed(what: str, package: str, extra: str, is_installed: Callable[[str], object] = find_spec) -> Any:
    """Import a package that not everyone has installed.

    Parameters
    ----------
    what
        Needs it, for the message.
    package, extra
        Its name, and the extra of this package that installs it.
    is_installed
        Tells whether it is there.

    Raises
    ------
    InputError
        If it is not there, or lacks something itself.
    """
    with contextlib.suppress(ImportError):
        if is_installed(package):
            return import_module(package)
    raise InputError(
        f'{what} needs the package {package}, which is not installed: pip install "sam2-fewshot[{extra}]".'
    )


def listed(names: Sequence[str], most: int, between: str = ", ", *, with_rest: bool = False) -> str:
    """Return names in a row for a message, the first few where there are many.

    Parameters
    ----------
    names
        All of them.
    most
        So many are named.
    between
        What to put between two.
    with_rest
        Say of how many no name is given: ``and 3 more`` rather than ``…``.
    """
    more = f"and {len(names) - most:,} more" if with_rest else "…"
    return between.join([*names[:most], *([more] if len(names) > most else [])])


def spelt(text: str) -> str:
    r"""Return a text with its control characters spelt, as ``\x1b``: in the name of a file they steer a terminal."""
    return text.translate(_CONTROLS)


def counted(number: int, what: str) -> str:
    """Return how many there are of something that has a plural in -s: ``1 frame``, ``1,200 frames``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def were(number: int, what: str) -> str:
    """Return the same with the verb of a passive: ``1 frame was``, ``1,200 frames were``."""
    return f"{counted(number, what)} {'was' if number == 1 else 'were'}"


def command_line(words: Sequence[str], *, windows: bool = os.name == "nt") -> str:
    """Return words as a command line to be copied.

    Parameters
    ----------
    words
        The program and its arguments.
    windows
        Whether it is for Windows, whose command line and PowerShell both take double quotes, rather than for a POSIX
        shell. Left out: as the program runs there. A ``%NAME%`` of the one and a ``$name`` of the other are replaced
        even in quotes.
    """
    return " ".join(_in_double_quotes(word) if windows else shlex.quote(word) for word in words)


def _in_double_quotes(word: str) -> str:
    """Return a word in double quotes where it needs them, by the rules that a program's arguments are parsed by."""
    if re.fullmatch(r"[\w./\\:+=-]+", word):
        return word
    # Backslashes count as themselves but before a double quote, that at the end included.
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', word)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt, even where this is process 1 of a container, which ignores it otherwise."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python allows signal handlers in the main thread only
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
