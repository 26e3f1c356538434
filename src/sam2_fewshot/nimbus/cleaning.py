"""What jobs have left double, and what an earlier job has found and this one has not, taken out of the dataset.

Nothing is deleted but what this tool has made and nobody has touched since, and nothing before that which takes its
place is there with its figures and connections. What has another outline now is replaced frame by frame, so that a job
that ends early leaves none of its frames double; what is not detected any more goes when all frames are done. Jobs that
clean at the same time choose alike.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sam2_fewshot.nimbus.server import MOST_LOOKS, Refused, parts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sam2_fewshot.nimbus.connections import Connections
    from sam2_fewshot.nimbus.existing import Existing
    from sam2_fewshot.nimbus.figures import Properties
    from sam2_fewshot.nimbus.matching import StoredAnnotation
    from sam2_fewshot.nimbus.server import Server


class Cleaner:
    """Deletes annotations together with what belongs to them.

    Whatever asks the server raises ServerError if that refuses, or does not answer.

    Parameters
    ----------
    server
        The connection.
    existing
        The annotations with the tags and the channel of the job's results.
    properties, connections
        What belongs to them.
    examples
        The job's training tags: only objects that were detected from examples with one of them can be out of date.
    """

    def __init__(
        self,
        server: Server,
        existing: Existing,
        properties: Properties,
        connections: Connections,
        examples: Sequence[str],
    ) -> None:
        self._server = server
        self._existing = existing
        self._properties = properties
        self._connections = connections
        self._examples = examples
        self._outdated: dict[str, str | None] = {}
        self._deleted: set[str] = set()
        self._successors: set[str] = set()
        self.doubles = self.outdated = self.own = 0
        """Number of annotations that were deleted as doubles, as out of date, and of those that this job had made."""

    def begin(self) -> None:
        """Delete the doubles that earlier jobs have left."""
        leaving: dict[str, str | None] = {**self._existing.doubles()}
        unmarked = self._existing.unmarked_doubles()
        if unmarked:  # by a version that did not mark its objects yet, or by the user
            ours = self._properties.of({*unmarked, *unmarked.values()})
            leaving.update((key, stays) for key, stays in unmarked.items() if {key, stays} <= ours)
        self._delete(leaving)

    def may_replace(self, known: StoredAnnotation) -> bool:
        """Tell whether an annotation is of an earlier job of this kind, with just the same tags, and untouched."""
        return (
            known.mark is not None
            and known.is_exact
            and known.mark.looks_for(self._examples)
            and not (known.is_negative or known.is_example)
            and not self._existing.has_arrived(known.id)
        )

    def replace(
        self, known: Sequence[StoredAnnotation], claimed: Collection[str], successors: Mapping[str, str]
    ) -> None:
        """Take note of what is out of date on a frame, and delete that in whose place others are now.

        What the server refuses to delete is left to :meth:`finish`.

        Parameters
        ----------
        known
            The annotations that were on the frame before the detections of the job were added.
        claimed
            Ids of those that the job has detected too. Of the others, those that it may replace are out of date.
        successors
            Ids of new annotations of the same objects by those of some that are out of date; the new ones have their
            figures and connections.
        """
        for item in known:
            if item.id not in claimed and self.may_replace(item):
                self._outdated[item.id] = successors.get(item.id)
        if successors:
            with suppress(Refused):
                self._delete({key: successors[key] for key in self._existing.still_untouched(successors)})

    @property
    def waiting(self) -> int:
        """Number of annotations that are out of date and still there."""
        return len(self._outdated.keys() - self._deleted)

    def finish(self) -> None:
        """Look what this job and others have left double, and delete it with what is out of date.

        Where nobody has interfered and no answer was lost, these are two small requests.
        """
        existing, doubts = self._existing, self._server.doubts
        self._server.wait_for_gateway()
        existing.update()
        existing.check()
        is_disturbed = existing.is_disturbed or doubts > 0
        if is_disturbed or self._leaving():
            for _ in range(MOST_LOOKS):
                existing.reload()  # somebody may have edited what is about to be deleted
                leaving = self._leaving()
                self._delete(leaving)
                if not (leaving and is_disturbed):
                    break
        gone = self._gone()
        self._connections.settle(self._successors, gone, is_disturbed)
        self._properties.finish(gone, is_disturbed)

    def _leaving(self) -> dict[str, str | None]:
        """Return what is to be deleted, with what takes its place."""
        existing = self._existing
        leaving: dict[str, str | None] = {
            key: match.known.id if match.same_outline else None for key, match in existing.rivals().items()
        }
        leaving.update(existing.doubles())
        untouched = {known.id for known in existing.everything() if known.is_untouched} if self._outdated else set()
        for key, successor in self._outdated.items():
            if key in untouched:
                leaving[key] = successor if successor is not None and existing.has(successor) else None
        return {key: _last(leaving, stays) for key, stays in leaving.items()}

    def _delete(self, leaving: Mapping[str, str | None]) -> None:
        if not leaving:
            return
        replaced = {key: stays for key, stays in leaving.items() if stays is not None}
        self._properties.pass_on(replaced)
        kept = self._connections.pass_on(leaving)
        for key in kept:
            self._outdated.pop(key, None)
        ids = sorted(set(leaving) - kept)
        for part in parts(ids):
            self._server.send("taking out objects", "DELETE", "upenn_annotation/multiple", part)
        self.own += self._existing.forget(ids)
        self._deleted.update(ids)
        self._successors.update(replaced.values())
        outdated = sum(key in self._outdated for key in ids)
        self.outdated += outdated
        self.doubles += len(ids) - outdated

    def _gone(self) -> set[str]:
        """Return the ids of annotations that are deleted, by this job or, of its own, by another one."""
        vanished = self._existing.vanished()
        replaced = {key: stays for key, stays in vanished.items() if stays is not None}
        self._properties.pass_on(replaced)
        self._successors.update(replaced.values())
        self.own += len(replaced)
        return self._deleted | self._existing.deleted(vanished)


def _last(leaving: Mapping[str, str | None], key: str | None) -> str | None:
    """Return the end of a chain of annotations each of which takes the place of the one before."""
    while key is not None and key in leaving:
        key = leaving[key]
    return key
