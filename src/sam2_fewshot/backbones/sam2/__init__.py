"""SAM 2: checkpoints, devices, batched encoding and prompt decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from sam2_fewshot.backbones.sam2.network import Sam2Model
    from sam2_fewshot.settings import Settings


def open_model(name: str | os.PathLike[str], device: str, settings: Settings) -> Sam2Model:
    """Find a checkpoint, load it, and bring it to a device.

    On a CPU with glibc this process keeps freed memory from then on, see
    :func:`~sam2_fewshot.backbones.sam2.cpu.reuse_memory`.

    Parameters
    ----------
    name
        As :func:`sam2_fewshot.backbones.sam2.checkpoints.resolve`.
    device
        As :func:`sam2_fewshot.backbones.sam2.device.choose_device`.
    settings
        ``precision``, ``batch_size``, ``points_per_batch``, ``compile`` and ``max_memory`` are used.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, or it cannot be used.
    SettingsError
        If there is no such device, or it cannot compute in the precision.
    """
    from sam2_fewshot.backbones.sam2.checkpoints import resolve, sha256_of
    from sam2_fewshot.backbones.sam2.cpu import reuse_memory
    from sam2_fewshot.backbones.sam2.device import choose_device, choose_dtype
    from sam2_fewshot.backbones.sam2.loading import load_network
    from sam2_fewshot.backbones.sam2.network import Sam2Model

    found = resolve(name)
    chosen = choose_device(device)
    if chosen.type == "cpu":
        reuse_memory()
    model = Sam2Model(
        load_network(found),
        name=found.checkpoint.name,
        sha256=sha256_of(found.path),
        gates=found.checkpoint.gates,
        device=chosen,
        dtype=choose_dtype(chosen, settings.precision),
        batch_size=settings.batch_size,
        points_per_batch=settings.points_per_batch,
        compiled=settings.compile,
    )
    model.keep_within(settings)
    return model


def expected_bytes(name: str | os.PathLike[str]) -> int:
    """Return about what ``extra_bytes`` of a checkpoint's model will be on a CPU, from what is known without torch.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, or its configuration cannot be used.
    """
    from sam2_fewshot.backbones.sam2.checkpoints import resolve
    from sam2_fewshot.backbones.sam2.device import extra_bytes
    from sam2_fewshot.backbones.sam2.loading import input_size

    found = resolve(name)
    # Files of half the precision take as much once they are loaded.
    weights = found.checkpoint.download_size or found.path.stat().st_size
    return extra_bytes(weights, input_size(found.checkpoint.config))
