from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from sam2_fewshot.backbones.sam2.device import (
    choose_device,
    choose_dtype,
    describe,
    empty_cache,
    fitting,
    is_out_of_memory,
    present_devices,
    run_in_batches,
)
from sam2_fewshot.errors import FewShotWarning, InputError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

CPU = torch.device("cpu")
EVERYTHING = ["cuda:0", "cuda:1", "mps", "cpu"]


def works(_: torch.device) -> str:
    return ""


def test_the_cpu_is_always_there_and_works() -> None:
    assert present_devices()[-1] == "cpu"
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in {"cpu", "cuda", "mps"}


@pytest.mark.parametrize(
    ("name", "present", "chosen"),
    [
        ("auto", EVERYTHING, "cuda:0"),
        ("auto", ["mps", "cpu"], "mps"),
        ("auto", ["cpu"], "cpu"),
        ("cuda", EVERYTHING, "cuda:0"),
        ("cuda:1", EVERYTHING, "cuda:1"),
        ("mps", EVERYTHING, "mps"),
        ("cpu", EVERYTHING, "cpu"),
    ],
)
def test_the_device_asked_for_is_chosen(name: str, present: list[str], chosen: str) -> None:
    assert choose_device(name, present=present, problem=works) == torch.device(chosen)


@pytest.mark.parametrize("name", ["cuda", "cuda:2", "mps", "gpu", "", "CUDA"])
def test_a_device_that_is_absent_is_answered_with_those_present(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"no device '{name}' here. This computer has: cuda:1, cpu; auto chooses"):
        choose_device(name, present=["cuda:1", "cpu"], problem=works)


def test_a_device_that_fails_is_passed_over_aloud() -> None:
    def broken(device: torch.device) -> str:
        return "" if device.type == "cpu" else "no kernel image is available."

    with pytest.warns(FewShotWarning, match="cuda:0 cannot be used and is passed over: no kernel image"):
        assert choose_device("auto", present=["cuda:0", "cpu"], problem=broken) == CPU
    with pytest.raises(SettingsError, match=r"'cuda' cannot be used: no kernel image is available\. Take another"):
        choose_device("cuda", present=["cuda:0", "cpu"], problem=broken)
    with pytest.raises(SettingsError, match="install torch again"), pytest.warns(FewShotWarning):
        choose_device("auto", present=["cuda:0"], problem=broken)


def test_a_real_device_is_tried_out() -> None:
    # "meta" has no numbers, so a calculation on it fails as it does on a GPU that torch cannot use.
    with pytest.raises(SettingsError, match="'meta' cannot be used: "):
        choose_device("meta", present=["meta", "cpu"])


def test_precision() -> None:
    cuda = torch.device("cuda:0")
    assert choose_dtype(CPU) is torch.float32
    assert choose_dtype(torch.device("mps")) is torch.float32
    assert choose_dtype(cuda, capability=(9, 0)) is torch.bfloat16
    assert choose_dtype(cuda, capability=(8, 0)) is torch.bfloat16
    assert choose_dtype(cuda, capability=(7, 5)) is torch.float32
    assert choose_dtype(cuda, "float32", capability=(9, 0)) is torch.float32
    assert choose_dtype(CPU, "bfloat16") is torch.bfloat16


def test_a_precision_that_cannot_be_had() -> None:
    with pytest.raises(SettingsError, match="'float16', but it must be auto, float32 or bfloat16"):
        choose_dtype(CPU, "float16")
    with pytest.raises(SettingsError, match=r"meta cannot compute in bfloat16 \(.*choose float32 or auto"):
        choose_dtype(torch.device("meta"), "bfloat16")


def test_devices_have_names_for_people() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert describe(CPU) == "CPU, 1 thread"
        torch.set_num_threads(2)
        assert describe(CPU) == "CPU, 2 threads"
    finally:
        torch.set_num_threads(before)
    assert describe(torch.device("mps")) == "Apple GPU (MPS)"


class Memory:
    """A function whose batches fit only up to a size."""

    def __init__(self, fits: int, error: Exception | None = None) -> None:
        self.fits = fits
        self.error = error or torch.OutOfMemoryError("CUDA out of memory.")
        self.sizes: list[int] = []

    def __call__(self, batch: Sequence[int]) -> list[int]:
        self.sizes.append(len(batch))
        if len(batch) > self.fits:
            raise self.error
        return [2 * item for item in batch]


@pytest.mark.parametrize("fits", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("batch_size", [1, 4, 16, 1000])
def test_every_item_comes_once_and_in_order(fits: int, batch_size: int) -> None:
    results = run_in_batches(Memory(fits), range(23), batch_size)
    assert [item for part in results for item in part] == list(range(0, 46, 2))


def test_the_batch_is_halved_and_stays_so() -> None:
    memory, told = Memory(3), list[int]()
    assert list(run_in_batches(memory, range(10), 8, told.append)) == [[0, 2], [4, 6], [8, 10], [12, 14], [16, 18]]
    assert memory.sizes == [8, 4, 2, 2, 2, 2, 2]
    assert told == [4, 2]


def test_arrays_and_tensors_are_items_too() -> None:
    assert [part.tolist() for part in run_in_batches(lambda part: part, np.arange(3), 2)] == [[0, 1], [2]]  # type: ignore[arg-type]
    assert [part.tolist() for part in run_in_batches(lambda part: part, torch.arange(3), 2)] == [[0, 1], [2]]  # type: ignore[arg-type]


def test_nothing_to_do() -> None:
    assert list(run_in_batches(Memory(1), [], 8)) == []


def test_what_does_not_fit_at_all_is_a_sentence() -> None:
    memory = Memory(0)
    with pytest.raises(InputError, match="even one at a time"):
        list(run_in_batches(memory, range(5), 4))
    assert memory.sizes == [4, 2, 1]


def test_what_is_not_done_in_batches_lets_go_of_its_tensors_too() -> None:
    import weakref

    held: list[weakref.ref[torch.Tensor]] = []

    @fitting()
    def work(error: Exception) -> None:
        tensor = torch.ones(1)
        held.append(weakref.ref(tensor))
        raise error

    with pytest.raises(InputError, match="choose a smaller model") as caught:
        work(torch.OutOfMemoryError("CUDA out of memory."))
    assert "--device" not in str(caught.value), "not all who read it can choose"
    assert held[0]() is None
    with pytest.raises(RuntimeError, match="shapes"):
        work(RuntimeError("shapes differ"))


def test_tensors_of_the_failed_call_are_let_go_before_the_next() -> None:
    import weakref

    held: list[weakref.ref[torch.Tensor]] = []

    def function(batch: Sequence[int]) -> int:
        assert not any(reference() is not None for reference in held)
        tensor = torch.ones(len(batch))
        held.append(weakref.ref(tensor))
        if len(tensor) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return len(tensor)

    assert list(run_in_batches(function, range(4), 4)) == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "text",
    [
        "MPS backend out of memory (MPS allocated: 17 GB)",
        "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 TB.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_other_ways_to_say_out_of_memory(text: str) -> None:
    assert list(run_in_batches(Memory(2, RuntimeError(text)), range(4), 4)) == [[0, 2], [4, 6]]


def test_the_cpu_says_it_in_one_of_these_ways() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        list(run_in_batches(Memory(0, RuntimeError("shapes differ")), range(4), 4))
    assert not is_out_of_memory(ValueError("out of memory"))
    empty_cache()


@pytest.mark.gpu
def test_a_real_gpu() -> None:
    device = choose_device("cuda")
    assert present_devices()[0] == "cuda:0"
    assert describe(device) == torch.cuda.get_device_name(0)
    assert choose_dtype(device) in {torch.bfloat16, torch.float32}
    assert choose_dtype(device, "bfloat16") is torch.bfloat16
    free = torch.cuda.mem_get_info(device)[0]

    def function(batch: Sequence[int]) -> int:
        return len(torch.empty(len(batch) * (free // 3), dtype=torch.uint8, device=device)) and len(batch)

    told: list[int] = []
    assert sum(run_in_batches(function, range(5), 4, told.append)) == 5
    assert told == [2]
