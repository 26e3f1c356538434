"""Keep the newest made-up scenes on the device that trains."""

from __future__ import annotations

import collections
import multiprocessing
from typing import TYPE_CHECKING, Any

import torch

from training.pictures import MAX_IDS
from training.scenes import MAX_OBJECTS, Scene, scene

if TYPE_CHECKING:
    from training.config import Config


def _render(job: tuple[int, int]) -> Scene:
    torch.set_num_threads(1)
    return scene(*job)


class ScenePool:
    """The newest made-up scenes, rendered by worker processes in the order of their seeds.

    The pool after n scenes depends on n alone, so a resumed run sees the very same pictures.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.made, self.asked = config, 0, 0
        self._pool: Any = multiprocessing.get_context("fork").Pool(config.workers) if config.workers else None
        self._waiting: collections.deque[Any] = collections.deque()
        self.images = self.labels = self.classes = torch.empty(0)

    def start(self, made: int, device: torch.device) -> None:
        """Fill the pool as it was after `made` scenes.

        Parameters
        ----------
        made
            Number of scenes rendered so far; at least the first filling is made.
        device
            Where the scenes lie.
        """
        slots, size = self.config.scene_pool, self.config.image_size
        self.images = torch.zeros(slots, 3, size, size, dtype=torch.uint8, device=device)
        self.labels = torch.zeros(slots, size, size, dtype=torch.int16, device=device)
        self.classes = torch.zeros(slots, MAX_IDS, dtype=torch.int16, device=device)
        made = max(made, min(self.config.scenes_first, slots))
        self.made = self.asked = max(0, made - slots)
        self.add(made - self.made)

    def add(self, count: int) -> None:
        """Put the next scenes into the pool.

        Parameters
        ----------
        count
            How many.
        """
        for _ in range(count):
            self._ask()
            made = self._waiting.popleft()
            item: Scene = made.get() if self._pool else made
            slot = self.made % self.config.scene_pool
            image = torch.from_numpy(item.image).to(self.images.device)
            self.images[slot] = image.permute(2, 0, 1)
            self.labels[slot] = torch.from_numpy(item.labels).to(self.images.device)
            classes = torch.zeros(MAX_IDS, dtype=torch.int16)
            classes[: min(MAX_OBJECTS + 1, len(item.classes))] = torch.from_numpy(item.classes[: MAX_OBJECTS + 1])
            self.classes[slot] = classes.to(self.images.device)
            self.made += 1

    def _ask(self) -> None:
        ahead = self.config.workers * 6 if self._pool else 1
        while self.asked < self.made + max(1, ahead):
            job = (self.config.seed * 1_000_000 + self.asked, self.config.image_size)
            self._waiting.append(self._pool.apply_async(_render, (job,)) if self._pool else _render(job))
            self.asked += 1

    def __len__(self) -> int:
        return min(self.made, self.config.scene_pool)

    def close(self) -> None:
        """End the worker processes."""
        if self._pool:
            self._pool.terminate()
