"""Images, examples and ranges in: one module a format, pixels read when they are asked for."""

from __future__ import annotations

from sam2_fewshot.readers.channels import ChannelSetting, read_channels
from sam2_fewshot.readers.examples import read_examples
from sam2_fewshot.readers.images import FrameFile, ImageFile, ImageSet, open_images
from sam2_fewshot.readers.placing import PlacedExemplar
from sam2_fewshot.readers.ranges import parse_range

__all__ = [
    "ChannelSetting",
    "FrameFile",
    "ImageFile",
    "ImageSet",
    "PlacedExemplar",
    "open_images",
    "parse_range",
    "read_channels",
    "read_examples",
]
