"""Seconds and memory for files of very many marked objects.

    python benchmarks/reading.py [--objects 22500 50000 60000]

Made-up outlines of 40 corners on an image of 4,096 × 4,096 px: as many features in two GeoJSON files as the first two
numbers say, and as many ROIs in a zip file as the last one says. All are read, and the first is also converted to
ImageJ's ROIs, by a process of its own, whose seconds (of its core, and by the clock) and memory beyond that of the
imports are told. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import tifffile
from roifile import ImagejRoi

SIDE, CORNERS = 4096, 40

READ = """
import sys, time
from pathlib import Path
import roifile, shapely
from sam2_fewshot.annotations.convert import convert
from sam2_fewshot.annotations.examples import read_examples
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.settings import Settings

def most():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

source, image, out = map(Path, sys.argv[1:])
images = open_images([image], Settings())
before = most()
clock, core = time.perf_counter(), time.process_time()
if out.name == "-":
    count = len(read_examples(source, images))
else:
    count = convert(source, out).objects
clock, core = time.perf_counter() - clock, time.process_time() - core
more = most() - before
print(f"{source.name}, {count:,} objects, {'converted' if out.name != '-' else 'read'}: "
      f"{core:.1f} s of the core, {clock:.1f} s by the clock, {more / 1024:.0f} MB")
"""


def outlines(count: int) -> list[np.ndarray]:
    """Return outlines (40, 2) in rows and columns that fill the image."""
    rng = np.random.default_rng(0)
    per_row = int(np.ceil(count**0.5))
    step = SIDE / per_row
    angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    found = []
    for i in range(count):
        centre = (i % per_row + 0.5) * step, (i // per_row + 0.5) * step
        radius = step * 0.35 * (1 + 0.15 * rng.standard_normal(CORNERS))
        found.append((np.column_stack([np.cos(angle), np.sin(angle)]) * radius[:, None] + centre).round(2))
    return found


def write_geojson(path: Path, count: int) -> None:
    """Write a feature collection of two classes."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*ring.tolist(), ring[0].tolist()]]},
            "properties": {"objectType": "annotation", "classification": {"name": "cell" if i % 3 else "debris"}},
        }
        for i, ring in enumerate(outlines(count))
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def write_rois(path: Path, count: int) -> None:
    """Write a zip file of ROIs."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, ring in enumerate(outlines(count)):
            archive.writestr(f"{i:06}.roi", ImagejRoi.frompoints(ring.astype(np.float32)).tobytes())


def main() -> None:
    """Write the files, and read each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, nargs=3, default=[22_500, 50_000, 60_000])
    first, second, third = parser.parse_args().objects
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = folder / "image.tif"
        tifffile.imwrite(image, np.zeros((SIDE, SIDE), np.uint8))
        files = [folder / f"{first}.geojson", folder / f"{second}.geojson", folder / f"{third}.zip"]
        write_geojson(files[0], first)
        write_geojson(files[1], second)
        write_rois(files[2], third)
        for file, out in [*((file, "-") for file in files), (files[0], str(folder / "converted.zip"))]:
            subprocess.run([sys.executable, "-c", READ, str(file), str(image), out], check=True)


if __name__ == "__main__":
    main()
