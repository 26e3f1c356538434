"""The errors that a user can meet.

Every message is a sentence to a biologist: what is wrong, with which value, and what to do about it. The command line
prints the message alone; a traceback means a defect in this program.
"""

from __future__ import annotations


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
