"""Read the real training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from pathlib import Path

MAX_IDS = 432  # the fullest training image has 428 objects


@dataclass
class Pictures:
    """Pictures of several sizes in one padded block.

    Attributes
    ----------
    images
        (n, 3, height, width) uint8.
    labels
        (n, height, width) int16; 0 is background.
    sizes
        (n, 2) height and width without the padding.
    objects
        (n,) median object size (square root of its area) in pixels.
    groups
        For each picture the kind of image that it belongs to.
    """

    images: Tensor
    labels: Tensor
    sizes: Tensor
    objects: Tensor
    groups: list[str]


def read_pairs(folder: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Read images with their instance masks.

    Parameters
    ----------
    folder
        Holds one folder for each data set, with ``NAME.png`` and ``NAME_labels.png``.

    Returns
    -------
    list
        Group, (height, width, 3) uint8 image and (height, width) labels from 1 without gaps, in the order of the names.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    pairs = []
    for path in sorted(folder.glob("*/*_labels.png")):
        picture = path.with_name(path.name.replace("_labels", ""))
        name = path.parent.name
        if name == "dsb2018":  # one data set of many kinds: the kind is the first part of the name
            name += "/" + picture.stem.rsplit("_", 1)[0]
        labels = np.asarray(Image.open(path)).astype(np.int64)
        labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape) + int(labels.min() > 0)
        pairs.append((name, np.asarray(Image.open(picture).convert("RGB")), labels.astype(np.int16)))
    if not pairs:
        raise FileNotFoundError(f"No images with masks (NAME.png and NAME_labels.png) in folders under {folder}.")
    return pairs


def load_pictures(folder: Path, device: torch.device) -> Pictures:
    """Load every training image onto the device.

    Parameters
    ----------
    folder
        See `read_pairs`.
    device
        Where the block lies.

    Returns
    -------
    Pictures
        The block.
    """
    pairs = read_pairs(folder)
    height, width = (max(labels.shape[axis] for _, _, labels in pairs) for axis in (0, 1))
    images = torch.zeros(len(pairs), 3, height, width, dtype=torch.uint8)
    masks = torch.zeros(len(pairs), height, width, dtype=torch.int16)
    sizes, objects = [], []
    for index, (_, image, labels) in enumerate(pairs):
        h, w = labels.shape
        images[index, :, :h, :w] = torch.from_numpy(image.copy()).permute(2, 0, 1)
        masks[index, :h, :w] = torch.from_numpy(np.where(labels < MAX_IDS, labels, 0))
        sizes.append((h, w))
        areas = np.bincount(labels.ravel())[1:]
        objects.append(float(np.sqrt(np.median(areas[areas > 0]))) if areas.size else 20.0)
    return Pictures(
        images.to(device),
        masks.to(device),
        torch.tensor(sizes),
        torch.tensor(objects),
        [group for group, _, _ in pairs],
    )
