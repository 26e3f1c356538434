"""The checkpoints known by name: Meta's four of SAM 2.1 and the small one embedded in the package."""

from __future__ import annotations

from dataclasses import dataclass

META_BASE_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
"""Where Meta publishes the SAM 2.1 checkpoints (README of facebookresearch/sam2)."""


@dataclass(frozen=True, slots=True)
class Gates:
    """What a candidate must exceed to be kept, as suits a checkpoint's calibration.

    Parameters
    ----------
    predicted_iou
        SAM 2's own guess of a mask's quality, in [0, 1].
    stability
        IoU of the mask at a cut of +1 and of -1 logits, in [0, 1].
    """

    predicted_iou: float
    stability: float


SAM2_GATES = Gates(predicted_iou=0.8, stability=0.95)
"""The defaults of ``SAM2AutomaticMaskGenerator`` in the public ``sam2`` package."""

EMBEDDED_GATES = Gates(predicted_iou=0.6, stability=0.95)
"""Of the embedded checkpoint: it predicts the IoU well, but seldom reaches SAM 2's .8 (its model card)."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is known of a checkpoint before its file is opened.

    Parameters
    ----------
    name
        File name, such as ``sam2.1_hiera_tiny.pt``.
    config
        Its configuration: a path inside the ``sam2`` package (``configs/…``), the name of a YAML file among
        the embedded weights, or the absolute path of a YAML file. None: the one that the weights themselves
        fit.
    gates
        Default gates of the proposals.
    image_size
        Side of the square model input in pixels; None where only the configuration says it.
    sha256
        Published hash of the file, in hexadecimal. None where none is published.
    size
        Size of the file in bytes; None where it was never measured.
    parameters
        Number of parameters, in millions; None where it is not known beforehand.
    url
        Where to download it; None if it cannot be.
    licence
        SPDX name of its licence, or what is known of it.
    """

    name: str
    config: str | None
    gates: Gates = SAM2_GATES
    image_size: int | None = None
    sha256: str | None = None
    size: int | None = None
    parameters: float | None = None
    url: str | None = None
    licence: str = "unknown"

    @property
    def short_name(self) -> str:
        """The name as people say it: ``tiny``, ``base_plus``; of other files, the name without its ending."""
        return self.name.removesuffix(".pt").removeprefix("sam2.1_hiera_")

    @property
    def download_size(self) -> int | None:
        """Size of the download in bytes: exact where it is known, else four bytes a parameter."""
        if self.size is not None:
            return self.size
        return None if self.parameters is None else round(self.parameters * 4e6)


def _meta(size_name: str, config: str, parameters: float, sha256: str, size: int | None = None) -> Checkpoint:
    name = f"sam2.1_hiera_{size_name}.pt"
    return Checkpoint(
        name=name,
        config=f"configs/sam2.1/sam2.1_hiera_{config}.yaml",
        image_size=1024,
        sha256=sha256,
        size=size,
        parameters=parameters,
        url=f"{META_BASE_URL}/{name}",
        licence="Apache-2.0",
    )


# The hashes are those that micro-sam and nine other public repositories pin alike. The numbers of
# parameters were counted on the networks that the configurations build.
TINY = _meta("tiny", "t", 39.0, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69")
SMALL = _meta("small", "s", 46.1, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38")
BASE_PLUS = _meta(
    "base_plus", "b+", 80.9, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5", 323_606_802
)
LARGE = _meta("large", "l", 224.4, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318")

MICRO = Checkpoint(
    name="sam2.1_hiera_micro.pt",
    config="sam2.1_hiera_micro.yaml",
    gates=EMBEDDED_GATES,
    licence="Apache-2.0",
)
"""The embedded checkpoint. Nothing here depends on its content: hash and input size are read from it."""

CHECKPOINTS = (BASE_PLUS, LARGE, SMALL, TINY, MICRO)
"""All known checkpoints, in the order in which ``auto`` prefers them.

base_plus is first because it is the method's documented default; the others follow by size. The device does
not enter the choice: the same command must give the same objects on a laptop and on a GPU server that hold
the same files, and a fast but different answer is asked for by name.
"""

NAMES = tuple(checkpoint.name for checkpoint in CHECKPOINTS)
"""File names of all known checkpoints."""


def find(name: str) -> Checkpoint | None:
    """Return the known checkpoint of that name, or None.

    Parameters
    ----------
    name
        File name (``sam2.1_hiera_tiny.pt``), the same without its ending, or the short name (``tiny``).
    """
    for checkpoint in CHECKPOINTS:
        if name in (checkpoint.name, checkpoint.name.removesuffix(".pt"), checkpoint.short_name):
            return checkpoint
    return None
