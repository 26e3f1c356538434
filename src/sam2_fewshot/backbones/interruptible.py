"""A backbone whose work can be stopped from another thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from sam2_fewshot.protocols import Backbone

_CALLS = frozenset({"embed", "pool", "pool_frame", "prompt", "prompt_boxes", "tiles"})


class Interruptible:
    """A :class:`~sam2_fewshot.protocols.Backbone` that first asks whether to go on.

    Learning reports its progress seldom, and calls the backbone often.

    Parameters
    ----------
    backbone
        Does the work.
    check
        Called before each encoding and each prompt; an exception that it raises stops the work.
    """

    def __init__(self, backbone: Backbone, check: Callable[[], None]) -> None:
        self._backbone, self._check = backbone, check

    def __getattr__(self, name: str) -> Any:
        if name in _CALLS:
            self._check()
        return getattr(self._backbone, name)
