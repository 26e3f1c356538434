"""Read a checkpoint's weights, safely, and fill SAM 2's network with them."""

from __future__ import annotations

import math
import pickle
import re
import warnings
from typing import TYPE_CHECKING

from sam2_fewshot.errors import CheckpointError
from sam2_fewshot.model.building import build, fitting_config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from sam2_fewshot.model.locate import Found


def load_network(found: Found) -> torch.nn.Module:
    """Load a checkpoint into the network of its configuration.

    Parameters
    ----------
    found
        The file and what is known of it, from :func:`sam2_fewshot.model.locate.resolve`.

    Returns
    -------
    torch.nn.Module
        A ``sam2.modeling.sam2_base.SAM2Base`` on the CPU, in float32 and evaluation mode, whose parameters
        want no gradients. Its ``image_size`` is the side of its square input in pixels. It is what the
        public ``build_sam2(..., apply_postprocessing=False)`` gives.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, not a checkpoint, wants to run code, or does not fit its
        configuration.
    """
    weights = read_weights(found.path)
    config = found.checkpoint.config or fitting_config(weights)
    if config is None:
        raise CheckpointError(
            f"{found.path} fits none of the known SAM 2 models. If it is a SAM 2 checkpoint, put its "
            f"configuration beside it, as {found.path.stem}.yaml."
        )
    network = build(config)
    _check_fit(network.state_dict(), weights, found.path, config)
    network.load_state_dict(weights, strict=True)  # copies into float32, whatever the file's precision is
    for name, value in network.state_dict().items():
        if not math.isfinite(value.sum()):  # NaN and Inf survive a sum, which is ten times as fast as isfinite
            raise CheckpointError(f"The checkpoint {found.path} is unusable: its weight {name} holds NaN or Inf.")
    return network.eval().requires_grad_(False)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint's tensors by name, on the CPU, in the precision that the file has.

    The file is a state dict, bare or under the key ``model`` or ``state_dict``. No code in it is run.

    Raises
    ------
    CheckpointError
        If the file is missing, empty, cut short, not a checkpoint, or holds Python objects other than
        tensors.
    """
    import torch

    first = _first_bytes(path)
    try:
        with warnings.catch_warnings():
            # About TorchScript archives, which are refused below, and about the pickles of other programs.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refused(path, first, str(error))) from None
    except MemoryError:
        raise CheckpointError(f"The checkpoint {path} does not fit into this computer's memory.") from None
    except Exception:
        # What torch raises on damaged files depends on where they are damaged.
        raise CheckpointError(_unreadable(path, first)) from None
    return _state_dict(content, path)


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            first = file.read(64)
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint {path}.") from None
    except OSError as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read: {error.strerror}.") from None
    if not first:
        raise CheckpointError(f"The checkpoint {path} is empty; download it again.")
    return first


def _refused(path: Path, first: bytes, reason: str) -> str:
    """Say why torch refused to unpickle a file."""
    code = re.search(r"GLOBAL ([\w.]+)", reason)  # as in "Unsupported global: GLOBAL builtins.eval"
    if not code:
        return _unreadable(path, first)
    return (
        f"{path} holds Python code ({code[1]}) besides weights. It was not run, and the file is refused; ask its "
        "maker for a file with the weights alone."
    )


def _unreadable(path: Path, first: bytes) -> str:
    if first.startswith(b"PK"):
        size = path.stat().st_size
        return f"The checkpoint {path} is damaged or cut short ({size:,} bytes); download it again."
    if first.startswith(b"\x80"):
        return f"{path} holds Python objects other than weights. None was run, and the file is refused."
    if first.startswith(b"version https://git-lfs"):
        return f"{path} is only a Git LFS pointer to a checkpoint; get the file itself with `git lfs pull`."
    if first.lstrip().startswith(b"<"):
        return f"{path} is a web page, not a checkpoint; download the file itself."
    return f"{path} is not a checkpoint that PyTorch can read; give a SAM 2 file such as sam2.1_hiera_tiny.pt."


def _state_dict(content: object, path: Path) -> dict[str, torch.Tensor]:
    """Take the state dict out of what a checkpoint holds."""
    import torch

    if isinstance(content, dict):
        content = next((content[key] for key in ("model", "state_dict") if key in content), content)
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds no weights: a SAM 2 checkpoint has them under the key 'model'.")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path} holds no weights: {name!r} is no tensor, and there is no key 'model'.")
    return content


def _check_fit(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], path: Path, config: str) -> None:
    """Refuse weights that are not those of the network."""
    missing = [name for name in wanted if name not in given]
    unexpected = [name for name in given if name not in wanted]
    misshapen = [name for name in wanted if name in given and wanted[name].shape != given[name].shape]
    if misshapen:
        name = misshapen[0]
        example = f"{name} is {_shape(given[name])} instead of {_shape(wanted[name])}"
    elif missing:
        example = f"{missing[0]} is missing"
    elif unexpected:
        example = f"{unexpected[0]} has no place in it"
    else:
        return
    raise CheckpointError(
        f"The checkpoint {path} does not fit its configuration {config}: of {len(wanted)} weights "
        f"{len(missing)} are missing, {len(misshapen)} have another shape, and {len(unexpected)} more are "
        f"unexpected; for instance, {example}. Put the configuration that it was trained with beside it, "
        f"as {path.stem}.yaml."
    )


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a single number"
