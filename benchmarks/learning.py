"""What learning from ten examples takes, by the size of the objects and of the frames that they lie on.

Each case is a process of its own, whose processor seconds are those of :meth:`FewShotSegmenter.fit` alone, and whose
peak memory is that of the whole process. The frames are made up: bright discs on noise, 300 of them on 2048 × 2048 px
where they are of 40 px. With one thread the seconds are those of a core (``OMP_NUM_THREADS=1``).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np

CASES = {
    "8 px, three frames of 1024 × 768": ((768, 1024), 8, 400, 3),
    "40 px, a frame of 2048 × 2048": ((2048, 2048), 40, 300, 1),
    "40 px, a frame of 8192 × 8192": ((8192, 8192), 40, 4800, 1),
}
"""Shape of a frame, diameter of the discs, how many lie on a frame, and how many frames there are."""
_EXAMPLES = 10


def discs(shape: tuple[int, int], diameter: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of discs, uint8 (H, W), and their labels; of those that overlap the later one is whole."""
    rng = np.random.default_rng(seed)
    picture, labels = rng.normal(50, 8, shape).astype(np.float32), np.zeros(shape, np.int32)
    for number in range(1, count + 1):
        y, x = (int(rng.integers(diameter, side - diameter)) for side in shape)
        radius = diameter / 2 * rng.uniform(0.8, 1.2)
        reach = int(radius) + 2
        rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        inside = rows**2 + columns**2 <= radius**2
        place = np.s_[y - reach : y + reach + 1, x - reach : x + reach + 1]
        picture[place][inside] = rng.normal(140, 10, int(inside.sum()))
        labels[place][inside] = number
    return picture.clip(0, 255).astype(np.uint8), labels


def learn(case: str, model: str, device: str) -> None:
    """Learn once, and print processor seconds and the peak memory in GB."""
    from sam2_fewshot import Exemplar, FewShotSegmenter
    from sam2_fewshot.protocols import Progress, Quiet

    class Silent(Quiet):
        def warn(self, sentence: str) -> None:
            """Say nothing."""

    shape, diameter, count, frames = CASES[case]
    pictures = [discs(shape, diameter, count, seed) for seed in range(frames)]
    # The last discs overlap no later ones.
    marked = [(pictures[i % frames], count - i // frames) for i in range(_EXAMPLES)]
    exemplars = [Exemplar(picture, mask=labels == number) for (picture, labels), number in marked]
    progress: Progress = Silent()
    segmenter = FewShotSegmenter(model, device, progress=progress)
    started = time.process_time()
    segmenter.fit(exemplars)
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    print(f"{seconds:.1f} {peak:.2f}")


def main() -> int:
    """Run what the command line asks for."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--model", default="micro")
    options.add_argument("--device", default="cpu")
    options.add_argument("--repeats", type=int, default=1)
    options.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.case:
        learn(given.case, given.model, given.device)
        return 0
    print("| objects and frames | processor seconds | peak memory, GB |\n|---|---|---|")
    for case in CASES:
        command = [sys.executable, __file__, "--model", given.model, "--device", given.device, "--case", case]
        runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(given.repeats)]
        figures = np.median([[float(word) for word in run.stdout.split()] for run in runs], axis=0)
        print(f"| {case} | {figures[0]:.1f} | {figures[1]:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
