"""Which device computes, in which precision, how much memory that takes, and what happens when it runs out."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from sam2_fewshot.errors import InputError, SettingsError, counted
from sam2_fewshot.protocols import Quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_BF16_CAPABILITY = (8, 0)
# Devices and libraries that do not raise torch.OutOfMemoryError say one of these in a RuntimeError.
_OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_NO_ROOM = (
    "The work does not fit into the device's memory, even one at a time. Close other programs that use this memory, "
    "choose a smaller model, or the CPU in place of a GPU if you can choose."
)


def present_devices() -> list[str]:
    """Return the names of the devices that torch sees, the fastest kind first; the last is always ``cpu``."""
    import torch

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = ["mps"] if torch.backends.mps.is_available() else []
    return [*(f"cuda:{index}" for index in range(cards)), *apple, "cpu"]


def choose_device(
    name: str,
    *,
    present: Sequence[str] | None = None,
    problem: Callable[[torch.device], str] | None = None,
) -> torch.device:
    """Return the device to compute on.

    Parameters
    ----------
    name
        ``auto`` (an NVIDIA GPU, else Apple's, else the CPU), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    present
        Names of the devices there are; None for :func:`present_devices`.
    problem
        Tries a device and returns what is wrong with it, empty if nothing; None for a small calculation on
        it. A GPU may be seen and still be of no use: too old for this torch, or taken exclusively by
        another program.

    Raises
    ------
    SettingsError
        If the device asked for does not exist or does not work. ``auto`` warns instead, and takes the next.
    """
    import torch

    names = present_devices() if present is None else list(present)
    try_out = _problem if problem is None else problem
    if name == "auto":
        for each in names:
            device = torch.device(each)
            trouble = try_out(device)
            if not trouble:
                return device
            Quiet().warn(f"{each} cannot be used and is passed over: {trouble}")
        raise SettingsError("No device of this computer works with torch; install torch again.")
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in names:
        raise SettingsError(f"There is no device {name!r} here. This computer has: {', '.join(names)}; auto chooses.")
    device = torch.device(wanted)
    trouble = try_out(device)
    if trouble:
        raise SettingsError(f"The device {name!r} cannot be used: {trouble} Take another, or auto.")
    return device


def choose_dtype(
    device: torch.device, precision: str = "auto", *, capability: tuple[int, int] | None = None
) -> torch.dtype:
    """Return the number type that the network computes in.

    Parameters
    ----------
    device
        Where it computes.
    precision
        ``float32``, ``bfloat16``, or ``auto``: bfloat16 on NVIDIA GPUs of compute capability 8.0 (Ampere,
        2020) and later, whose tensor cores are several times as fast in it, else float32. Older GPUs, most
        CPUs and Apple's GPUs only imitate bfloat16 or gain little, so there it must be asked for.
    capability
        The GPU's compute capability; None to ask the driver.

    Raises
    ------
    SettingsError
        If the precision is unknown, or the device cannot compute in it.
    """
    import torch

    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        level = torch.cuda.get_device_capability(device) if capability is None else capability
        return torch.bfloat16 if level >= _BF16_CAPABILITY else torch.float32
    if precision == "float32":
        return torch.float32
    if precision != "bfloat16":
        raise SettingsError(f"The precision is {precision!r}, but it must be auto, float32 or bfloat16.")
    trouble = _problem(device, torch.bfloat16)
    if trouble:
        raise SettingsError(f"{describe(device)} cannot compute in bfloat16 ({trouble}); choose float32 or auto.")
    return torch.bfloat16


def describe(device: torch.device) -> str:
    """Return what the device is, for people: ``NVIDIA H100 80GB HBM3``, ``CPU, 2 threads``."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"CPU, {counted(torch.get_num_threads(), 'thread')}"
    return "Apple GPU (MPS)" if device.type == "mps" else str(device)


def run_in_batches(
    function: Callable[[Sequence[Item]], Result],
    items: Sequence[Item],
    batch_size: int,
    on_shrink: Callable[[int], None] | None = None,
) -> Iterator[Result]:
    """Apply a function to items in batches, in order, with smaller batches when memory runs out.

    Parameters
    ----------
    function
        Takes a slice of `items` and returns its result. It must not keep anything of a call that failed.
    items
        Anything with a length and slices: a list, an array, a tensor.
    batch_size
        Items to begin with, at least 1.
    on_shrink
        Called with the new size each time the batch is halved, so that the caller can start with it next time.

    Yields
    ------
    Result
        The function's result of each batch; nothing is computed twice but the batch that failed.

    Raises
    ------
    InputError
        If not even a single item fits into the memory.
    """
    size = max(1, min(batch_size, len(items)))
    start = 0
    while start < len(items):
        try:
            result = function(items[start : start + size])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            start += size
            yield result
            continue
        # Here the error is gone, and with it the frames that held on to the tensors of the failed call.
        empty_cache()
        if size == 1:
            raise InputError(_NO_ROOM)
        size //= 2
        if on_shrink:
            on_shrink(size)


@contextmanager
def fitting() -> Iterator[None]:
    """Say in a sentence that work fits into no memory; for work that cannot be done in smaller batches.

    Raises
    ------
    InputError
        If the device's memory runs out.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold on to tensors
        empty_cache()
        raise InputError(_NO_ROOM) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that the device's memory ran out, on whichever device."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)


def empty_cache() -> None:
    """Give the memory that torch keeps for later back to the device."""
    import torch

    torch.cuda.empty_cache()  # nothing happens where no GPU was used
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _problem(device: torch.device, dtype: torch.dtype | None = None) -> str:
    """Compute a little on a device; return the first line of what goes wrong, or nothing."""
    import torch

    try:
        ones = torch.ones((8, 8), device=device, dtype=dtype)
        total = float((ones @ ones).sum())
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        return str(error).split("\n", 1)[0]
    return "" if total == 512.0 else f"it computes wrongly ({total:g} instead of 512)."


PROMPTS_ON_CPU = 32
"""Prompts that are decoded at a time on a CPU: 3.3 ms each, 3.4 in 16s and 4.6 in 64s."""
_EMBEDDED_WEIGHTS, _EMBEDDED_INPUT = 34_000_000, 512
"""Bytes of the embedded checkpoint, and the side of its input in pixels."""
_PER_INPUT_PIXEL, _PER_PROMPTED_CELL = 1100, 330
"""Bytes that an encoder pass takes for a pixel of its input, and decoding for a cell of a prompt's mask, of which there
are a quarter of the input's pixels each way. With one image and 64 prompts at a time, on one thread, the program took
3.2 GB at most with the network of tiny, 3.5 with base_plus, 3.9 with large and 1.25 with the embedded checkpoint."""


def image_bytes(input_size: int) -> int:
    """Return about how many bytes encoding an image takes, from the side of the network's input in pixels."""
    return _PER_INPUT_PIXEL * input_size**2


def prompt_bytes(input_size: int) -> int:
    """Return about how many bytes decoding a prompt takes."""
    return _PER_PROMPTED_CELL * (input_size // 4) ** 2


def extra_bytes(weights: int, input_size: int, images: int = 1, prompts: int = PROMPTS_ON_CPU) -> int:
    """Return how many bytes of the computer's memory a network takes beyond the embedded checkpoint (an estimate).

    Parameters
    ----------
    weights
        Bytes of the weights.
    input_size
        Side of the input in pixels.
    images, prompts
        So many are encoded and decoded at a time; as on a CPU when left out.
    """

    def working(size: int, images: int, prompts: int) -> int:
        return image_bytes(size) * images + prompt_bytes(size) * prompts

    own = weights + working(input_size, images, prompts)
    return max(0, own - _EMBEDDED_WEIGHTS - working(_EMBEDDED_INPUT, 1, PROMPTS_ON_CPU))
