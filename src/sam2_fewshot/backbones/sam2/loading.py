"""From a checkpoint's file to SAM 2's network: the weights, read safely, in a network built from a configuration."""

from __future__ import annotations

import math
import pickle
import re
import warnings
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_fewshot.backbones.sam2.checkpoints import CHECKPOINTS, EMBEDDED_FOLDER
from sam2_fewshot.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from sam2_fewshot.backbones.sam2.checkpoints import LocalCheckpoint


def load_network(found: LocalCheckpoint) -> torch.nn.Module:
    """Load a checkpoint into the network of its configuration.

    Parameters
    ----------
    found
        The file and what is known of it, from :func:`sam2_fewshot.backbones.sam2.checkpoints.resolve`.

    Returns
    -------
    torch.nn.Module
        A ``sam2.modeling.sam2_base.SAM2Base`` on the CPU, in float32 and evaluation mode, whose parameters
        want no gradients. Its ``image_size`` is the side of its square input in pixels. It is what the
        public ``build_sam2(..., apply_postprocessing=False)`` gives, without what only videos need: checkpoints
        may lack these weights, or have others.

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
    network = _image_part(build(config))
    weights = {name: value for name, value in weights.items() if name.partition(".")[0] in _IMAGE_PART}
    _check_fit(network.state_dict(), weights, found.path, config)
    network.load_state_dict(weights, strict=True)  # copies into float32, whatever the file's precision is
    for name, value in network.state_dict().items():
        if not math.isfinite(value.sum()):  # NaN and Inf survive a sum, which is ten times as fast as isfinite
            raise CheckpointError(f"The checkpoint {found.path} is unusable: its weight {name} holds NaN or Inf.")
    return network.eval().requires_grad_(False)


_IMAGE_PART = ("image_encoder", "sam_prompt_encoder", "sam_mask_decoder", "no_mem_embed")
"""Modules and parameters of SAM 2 that images are encoded and prompts are decoded with; the others are for videos."""


def _image_part(network: torch.nn.Module) -> torch.nn.Module:
    """Take out of a network what is not used."""
    children, own = network.named_children(), network.named_parameters(recurse=False)
    for name in [name for name, _ in (*children, *own) if name not in _IMAGE_PART]:
        delattr(network, name)
    return network


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
    return _unwrapped(content)


def _unwrapped(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights by their names in the model itself, whatever wrapper for training it was saved in."""
    for prefix in ("module.", "_orig_mod."):  # of DataParallel and its distributed form, and of torch.compile
        if all(name.startswith(prefix) for name in weights):
            return _unwrapped({name.removeprefix(prefix): value for name, value in weights.items()})
    return weights


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


# The classes that the public configurations are made of. A configuration names Python callables, so a YAML
# file from a stranger could run any code; these only build layers.
_MODELING = "sam2.modeling."
_MODEL = _MODELING + "sam2_base.SAM2Base"
_ALLOWED_TARGETS = frozenset(
    {
        "torch.nn.Identity",
        _MODEL,
        _MODELING + "backbones.hieradet.Hiera",
        _MODELING + "backbones.image_encoder.FpnNeck",
        _MODELING + "backbones.image_encoder.ImageEncoder",
        _MODELING + "memory_attention.MemoryAttention",
        _MODELING + "memory_attention.MemoryAttentionLayer",
        _MODELING + "memory_encoder.CXBlock",
        _MODELING + "memory_encoder.Fuser",
        _MODELING + "memory_encoder.MaskDownSampler",
        _MODELING + "memory_encoder.MemoryEncoder",
        _MODELING + "position_encoding.PositionEmbeddingSine",
        _MODELING + "sam.transformer.RoPEAttention",
    }
)

# SAM 2.0's weights have the same names and nearly the same parts, so they work too when given by path.
_SAM20_CONFIGS = tuple(f"configs/sam2/sam2_hiera_{size}.yaml" for size in ("t", "s", "b+", "l"))


def build(config: str, seed: int = 0) -> torch.nn.Module:
    """Build a configuration's network with random weights, as the public ``build_sam2`` does before it loads.

    Parameters
    ----------
    config
        As :attr:`sam2_fewshot.backbones.sam2.checkpoints.Checkpoint.config`.
    seed
        Of the random numbers. The global generator is left as it was.

    Returns
    -------
    torch.nn.Module
        A ``SAM2Base`` on the CPU, in float32, in training mode.

    Raises
    ------
    CheckpointError
        If the configuration cannot be read, is none of SAM 2, or asks for anything but SAM 2's layers.
    """
    import torch
    from hydra.errors import HydraException
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    model = _model_section(config)
    for node in _nodes(model):
        target = node.get("_target_", "torch.nn.Identity")
        if target not in _ALLOWED_TARGETS:
            raise CheckpointError(f"The model configuration {config} asks for {target}, which is no part of SAM 2.")
        node.pop("weights_path", None)  # the checkpoint brings the weights; nothing else is read
        if target == _MODELING + "position_encoding.PositionEmbeddingSine":
            node["warmup_cache"] = False  # it would put tensors on the first GPU, wanted there or not
    model["compile_image_encoder"] = False  # takes minutes, prints, and hides the encoder in a wrapper
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network: torch.nn.Module = instantiate(OmegaConf.create(model))
    except (HydraException, OmegaConfBaseException) as error:
        raise CheckpointError(f"The model configuration {config} cannot be built: {_one_line(error)}") from None
    return network.float()  # whatever the user's default is


def fitting_config(weights: Mapping[str, torch.Tensor]) -> str | None:
    """Tell by the encoder's width and depth which known configuration weights belong to; None if to none."""
    trunk = "image_encoder.trunk."
    patch = weights.get(trunk + "patch_embed.proj.weight")
    blocks = {name.split(".")[3] for name in weights if name.startswith(trunk + "blocks.")}
    width = patch.shape[0] if patch is not None and patch.ndim else 0
    fingerprint = (width, len(blocks), "no_obj_embed_spatial" in weights)
    known = tuple(each.config for each in CHECKPOINTS if each.config) + _SAM20_CONFIGS
    return next((config for config in known if _fingerprint(config) == fingerprint), None)


_META_INPUT, _DEFAULT_INPUT = 1024, 512
"""px; the input of all of Meta's checkpoints, and that of a configuration which does not say."""


def input_size(config: str | None) -> int:
    """Return the side of the network's square input in pixels, without building it.

    Parameters
    ----------
    config
        As :attr:`sam2_fewshot.backbones.sam2.checkpoints.Checkpoint.config`; None stands for any of Meta's.

    Raises
    ------
    CheckpointError
        If the configuration cannot be read, or is none of SAM 2.
    """
    if config is None:
        return _META_INPUT
    size = _model_section(config).get("image_size", _DEFAULT_INPUT)
    return size if isinstance(size, int) else _META_INPUT


_SUPPLIERS = ("rf-sam-2", "sam2")
"""Distributions that are known to hold the package ``sam2``: this program's own choice, and Meta's."""


def sam2_distribution() -> str:
    """Return which installed distribution supplies the package ``sam2``, and its version.

    ``rf-sam-2 1.0.3`` and ``sam2 1.1.0`` hold the same package; results should tell which one made them.
    """
    found = []
    for name in _SUPPLIERS:
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    if not found:  # which takes a second and more, since all that is installed is looked through
        names = metadata.packages_distributions().get("sam2", [])
        found = sorted({f"{name.lower()} {metadata.version(name)}" for name in names})
    return ", ".join(found) or "unknown"


def _model_section(config: str) -> dict[str, Any]:
    """Read a configuration's description of the model."""
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if config.startswith("configs/"):
        import sam2

        path = Path(sam2.__path__[0]) / config
    else:
        path = EMBEDDED_FOLDER / config  # an absolute path stays what it is
    try:
        tree = OmegaConf.create(path.read_text(encoding="utf-8"))
        # The rest may name what only a trainer knows.
        node = tree.get("model") if isinstance(tree, DictConfig) else None
        model: Any = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else None
    except OSError as error:
        raise CheckpointError(f"The model configuration {path} cannot be read: {error.strerror}.") from None
    except (YAMLError, OmegaConfBaseException, ValueError) as error:
        raise CheckpointError(f"The model configuration {path} is no YAML file: {_one_line(error)}") from None
    if not isinstance(model, dict) or model.get("_target_") != _MODEL:
        raise CheckpointError(
            f"The model configuration {path} describes no SAM 2 model (model: with _target_: {_MODEL}). If it is that "
            "of a training, move it away: a network of Meta's is known by its weights."
        )
    return model


def _nodes(tree: object) -> Iterator[dict[str, Any]]:
    """Yield every mapping in a tree of mappings and lists."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


@lru_cache(maxsize=16)
def _fingerprint(config: str) -> tuple[int, int, bool]:
    """Return width of the patch embedding, number of blocks, and whether it is of SAM 2.1's kind."""
    import inspect

    from sam2.modeling.backbones.hieradet import Hiera

    model = _model_section(config)
    trunk = model["image_encoder"]["trunk"]
    stages = trunk.get("stages") or inspect.signature(Hiera).parameters["stages"].default
    return trunk["embed_dim"], sum(stages), model.get("no_obj_embed_spatial", False)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
