"""What the user sees when something goes wrong: one sentence and the right exit code."""

from __future__ import annotations

import contextlib
import logging
import traceback
import warnings
from typing import TYPE_CHECKING, NoReturn

import typer

from sam2_fewshot.errors import FewShotError, FewShotWarning
from sam2_fewshot.interrupting import terminated_like_interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator

DONE, PARTLY, WRONG_INPUT = 0, 1, 2
"""The exit codes: all done; stopped or failed part-way; wrong usage or input and nothing written."""


@contextlib.contextmanager
def guarded(debug: bool = False) -> Iterator[None]:
    """Turn every exception into a sentence on stderr and an exit code.

    SIGTERM counts as Ctrl-C, and what other libraries warn or log about is kept from the user.

    Parameters
    ----------
    debug
        Show the traceback of a defect.
    """
    try:
        with terminated_like_interrupted(), _other_libraries_quiet():
            yield
    except KeyboardInterrupt:
        _fail("Stopped before anything was written.", PARTLY)
    except FewShotError as error:
        _fail(str(error), WRONG_INPUT)
    except MemoryError:
        _fail(
            "There is not enough memory for this. Close other programs, or use smaller images or a smaller "
            "--batch-size and --points-per-batch.",
            PARTLY,
        )
    except OSError as error:
        if error.filename is None:
            _defect(error, debug)
        _fail(f"{error.filename}: {error.strerror or error}.", WRONG_INPUT)
    except Exception as error:
        if isinstance(error, (typer.Exit, typer.Abort)):
            raise
        _defect(error, debug)


def _fail(sentence: str, code: int) -> NoReturn:
    typer.echo(f"Error: {' '.join(sentence.split())}", err=True)
    raise typer.Exit(code) from None


def _defect(error: Exception, debug: bool) -> NoReturn:
    if debug:
        typer.echo("".join(traceback.format_exception(error)), err=True)
    hint = "" if debug else " Run the command again with --debug to see where."
    _fail(f"This is a defect in sam2-fewshot, please report it: {type(error).__name__}: {error}.{hint}", PARTLY)


@contextlib.contextmanager
def _other_libraries_quiet() -> Iterator[None]:
    """Hide third-party warnings and log lines; our own warnings become lines on stderr."""

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        typer.echo(f"Warning: {message}", err=True)

    silent = logging.NullHandler()
    root = logging.getLogger()
    root.addHandler(silent)  # with no handler at all, Python prints what libraries log
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", FewShotWarning)
            warnings.showwarning = show  # type: ignore[assignment]
            yield
    finally:
        root.removeHandler(silent)
