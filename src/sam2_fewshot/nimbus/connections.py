"""Found objects connected to their nearest neighbour with certain tags, each once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sam2_fewshot.nimbus.server import Unanswered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.nimbus.parameters import ConnectTo
    from sam2_fewshot.nimbus.server import Patience, Server

_PAGE = 5000


class Connections:
    """Connects annotations; nothing happens where nothing was asked for.

    The server looks for the nearest annotation on the same frame that is not in the request itself, so all objects
    of a frame go in one request.

    Parameters
    ----------
    server
        The connection to the server.
    dataset_id
        The dataset's folder.
    connect_to
        What to connect to; None for nothing.
    patience
        How long to look for what an unanswered request has done.
    """

    def __init__(self, server: Server, dataset_id: str, connect_to: ConnectTo | None, patience: Patience) -> None:
        self._server = server
        self._dataset_id = dataset_id
        self._to = connect_to
        self._patience = patience
        self._before: set[str] | None = None

    def connect(self, created: Sequence[str], present: Sequence[str]) -> None:
        """Connect annotations of one frame.

        Parameters
        ----------
        created
            Ids of annotations that are new.
        present
            Ids of those of an earlier run, which may have died before it connected them.

        Raises
        ------
        ServerError
            If the server refuses.
        """
        if self._to is None:
            return
        left = list(created)
        if present:
            if self._before is None:
                self._before = self._connected()
            left += [key for key in present if key not in self._before]
        waits = self._patience.waits()
        while left:
            try:
                self._server.send(
                    "connecting the objects",
                    "POST",
                    "annotation_connection/connectTo",
                    {
                        "annotationsIds": left,
                        "tags": list(self._to.tags),
                        "channelId": self._to.channel,
                        "datasetId": self._dataset_id,
                    },
                )
            except Unanswered:
                wait = next(waits, None)
                if wait is None:
                    raise
                time.sleep(wait)
                done = self._connected()
                left = [key for key in left if key not in done]
            else:
                return

    def _connected(self) -> set[str]:
        """Return the annotations that have been connected: in a connection they are the child."""
        found: set[str] = set()
        query: dict[str, object] = {"datasetId": self._dataset_id, "limit": _PAGE, "sort": "_id", "sortdir": 1}
        while True:
            page = self._server.get("reading the connections", "annotation_connection", query)
            found.update(str(connection["childId"]) for connection in page)
            if len(page) < _PAGE:
                return found
            query["afterId"] = page[-1]["_id"]
