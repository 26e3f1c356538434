"""The examples a user marked, from whatever file they are in."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from sam2_fewshot.annotations.drawings import place
from sam2_fewshot.annotations.named import ImageNames, MarkedFile, named_part
from sam2_fewshot.annotations.placing import PlacedExemplar, Placer, Remarks
from sam2_fewshot.annotations.registry import FORMATS, READ_SUFFIXES, Format, readable
from sam2_fewshot.annotations.values import compact, load_json
from sam2_fewshot.errors import InputError, SettingsError, counted, were
from sam2_fewshot.images.addresses import holds_zarr, natural_key
from sam2_fewshot.images.source import kind_of, reading
from sam2_fewshot.protocols import Quiet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sam2_fewshot.images.image_file import ImageFile
    from sam2_fewshot.images.image_set import ImageSet
    from sam2_fewshot.protocols import Progress


def read_examples(
    path: Path | str,
    images: ImageSet,
    training_tag: str | None = None,
    negative_tag: str | None = None,
    progress: Progress | None = None,
    *,
    boxes: bool = False,
    on: str | None = None,
) -> list[PlacedExemplar]:
    """Read examples and put each on its frame.

    Parameters
    ----------
    path
        A label image (PNG, TIFF, OME-Zarr), a QuPath GeoJSON, ImageJ ROIs, COCO, or a NimbusImage JSON export; or a
        folder with files named after the images, such as ``a_labels.png``, ``a.geojson`` or ``a_rois.zip`` for
        ``a.tif``. A single file that is named after none of the images belongs to the image if only one was given;
        COCO and a NimbusImage export say themselves where their objects lie. One that is named after another image
        is refused.
    images
        The images that were given.
    training_tag
        Take the objects with this tag or class, in any letter case. None takes all that do not carry `negative_tag`.
    negative_tag
        Take the objects with this tag or class as examples of what is not wanted. Where the two tags differ by nothing
        but letter case, each is taken in its very spelling.
    progress
        Takes warnings: about objects that are left out, mended, or doubtful.
    boxes
        Whether outlines that are rectangles along the image's sides are boxes around objects.
    on
        Name of the image that the objects of a single file lie on, whatever the file is called.

    Returns
    -------
    list of PlacedExemplar
        In the order XY, Z, Time and then that of the file; at least one is positive.

    Raises
    ------
    InputError
        If there is no such file, or if it has no example that can be used.
    SettingsError
        If both tags are the same.
    """
    progress = progress or Quiet()
    training_tag, negative_tag = training_tag or None, negative_tag or None
    if training_tag is not None and training_tag == negative_tag:
        raise SettingsError(f"Training tag and negative tag are both {training_tag!r}; they must differ.")
    path = Path(path)
    tagged = training_tag is not None or negative_tag is not None
    placed = read_objects(path, images, progress, tagged, boxes=boxes, on=on)
    chosen = _choose(placed, path.name, training_tag, negative_tag, progress)
    return sorted(chosen, key=lambda example: example.location)


def read_objects(
    path: Path,
    images: ImageSet,
    progress: Progress,
    tagged: bool = False,
    *,
    boxes: bool = False,
    on: str | None = None,
    may_say: bool = True,
) -> list[PlacedExemplar]:
    """Read all marked objects and put each on its frame, whatever their tags.

    Parameters
    ----------
    path, images, progress, boxes, on
        As for :func:`read_examples`.
    tagged
        True when tags are asked for, so that a label image must come with its classes.
    may_say
        Whether the user can say `on` where it is not clear, which an error's message then advises.

    Raises
    ------
    InputError
        If there is no such file, or if it has no object that can be used.
    """
    placed: list[PlacedExemplar] = []
    all_remarks: list[Remarks] = []
    for file, found in _files(path, images, progress, on):
        remarks = Remarks(file.name, progress)
        form, content = format_of(file)
        if form is None:
            raise InputError(_not_read(file))
        image, alike = (found[0], ()) if len(found) == 1 else (None, found)
        placer = Placer(images, remarks, boxes)
        marked = MarkedFile(file, image, images, placer, content, tagged, alike, may_say, on is not None)
        placed += place(form.load().read(marked), placer)
        all_remarks.append(remarks)
    if not placed:  # the one sentence says why, so no warnings come before it
        reasons = {remarks.file: remarks.left_out() for remarks in all_remarks}
        given = [f"{file}: {why}" if len(reasons) > 1 else why for file, why in reasons.items() if why]
        why = "; ".join(given) or "it has no objects"
        raise InputError(f"No example in {path.name} can be used: {why}.")
    for remarks in all_remarks:
        remarks.report()
    return placed


def _files(path: Path, images: ImageSet, progress: Progress, on: str | None) -> list[tuple[Path, list[ImageFile]]]:
    """Return the files to read, each with the images whose name it has; none where the file says it itself."""
    kind = kind_of(path)
    if kind == "missing":
        raise InputError(f"There is no file or folder {path} with examples; check its name.")
    names = ImageNames(images)
    given = {os.path.realpath(image.path) for image in images}
    if kind == "file":
        if os.path.realpath(path) in given:
            raise InputError(f"{path.name} is given both as examples and as an image; leave it out of the images.")
        return [(path, names.of_file(path) if on is None else [names.called(on)])]
    if holds_zarr(path):
        return _zarr_files(path, images, names) if on is None else [(path, [names.called(on)])]
    if on is not None:
        raise InputError(
            f"--examples-on says on which image the objects of one file lie, but {path} is a folder, whose files are "
            "named after their images. Give a single file, or leave out --examples-on."
        )
    files = [file for file in marked_files(path) if os.path.realpath(file) not in given]
    matched = [(file, alike) for file in files if (alike := names.of_file(file))]
    companions = {companion_of(file) for file, _ in matched}
    matched = [(file, alike) for file, alike in matched if file not in companions]
    # ``x_2_labels.png`` is that of the second ``x.png``, as in results, so ``x_labels.png`` beside it is not.
    clear = {alike[0].xy for _, alike in matched if len(alike) == 1}
    matched = [
        (file, [each for each in alike if each.xy not in clear] if alike[1:] else alike) for file, alike in matched
    ]
    if not matched:
        stem = images[0].stem
        raise InputError(
            f"No file in the folder {path} is named after an image; for {images[0].name} it would be, for instance, "
            f"{stem}_labels.png, {stem}_labels.tif, {stem}.geojson or {stem}.json."
        )
    others = len(files) - len(matched) - len(companions - {None})
    if others:
        progress.warn(f"{were(others, 'file')} passed over in {path}: named after none of the images.")
    return matched


def _zarr_files(path: Path, images: ImageSet, names: ImageNames) -> list[tuple[Path, list[ImageFile]]]:
    """Return where labels are in an OME-Zarr: in the image that it is in, or in each of its images that has some."""
    real = os.path.realpath(path)
    places = {image.xy: os.path.realpath(image.path) for image in images}
    around = [image for image in images if real == places[image.xy] or real.startswith(places[image.xy] + os.sep)]
    inside = [image for image in images if places[image.xy].startswith(real + os.sep)]
    labelled = [image for image in inside if (image.path / "labels").is_dir()]
    if around or not labelled:
        return [(path, around[-1:] if around else names.of_file(named_part(path)))]
    return [(image.path, [image]) for image in labelled]


def marked_files(folder: Path) -> list[Path]:
    """Return the files and OME-Zarr in a folder that can hold examples, by their endings, in natural order.

    Raises
    ------
    InputError
        If the folder cannot be read.
    """
    with reading(folder):
        found = [file for file in folder.iterdir() if file.suffix.lower() in READ_SUFFIXES or holds_zarr(file)]
    return sorted((file for file in found if not file.name.startswith(".")), key=natural_key)


def format_of(path: Path) -> tuple[Format | None, Any]:
    """Return the format of a file or OME-Zarr, None when it is not read, and the content of a JSON file.

    Raises
    ------
    InputError
        If a JSON file cannot be read.
    """
    if path.is_dir():
        return next(form for form in FORMATS.values() if form.is_folder), None
    candidates = [form for form in FORMATS.values() if path.suffix.lower() in form.reads]
    if len(candidates) < 2:
        return next(iter(candidates), None), None
    content = load_json(path, compact)  # only JSON has an ending that several formats share
    # An export of NimbusImage, the last of them, may hold anything besides.
    return next((form for form in reversed(candidates) if form.load().recognises(content)), None), content


def _not_read(path: Path) -> str:
    """Return why a file of no known format cannot be read."""
    suffix = path.suffix.lower()
    if suffix in READ_SUFFIXES:
        return f"{path.name} is JSON of another kind; examples are read from {readable()}."
    if suffix in {".jpg", ".jpeg"}:
        reason = "JPEG changes the numbers in a label image"
    elif any(suffix in form.suffixes and not form.is_folder for form in FORMATS.values()):
        reason = "tables are written, but not read: they have no outlines; points are read from GeoJSON and ROI files"
    else:
        reason = "it is not known"
    return f"{path.name} cannot give examples ({reason}); they are read from {readable()}."


def companion_of(path: Path) -> Path | None:
    """Return the file beside one that belongs to it, None when there is none."""
    forms = [form for form in FORMATS.values() if path.suffix.lower() in form.reads]
    companion = forms[0].optional("companion") if len(forms) == 1 else None
    return companion(path) if companion else None


def _choose(
    placed: Sequence[PlacedExemplar], file: str, training: str | None, negative: str | None, progress: Progress
) -> list[PlacedExemplar]:
    counts = Counter(chain.from_iterable(example.tags for example in placed))
    exact = training is not None and negative is not None and _folded(training) == _folded(negative)
    wanted, unwanted = (_spellings(tag, exact, counts, file, len(placed)) for tag in (training, negative))
    for tag, alike in ((training, wanted), (negative, unwanted)):
        if len(alike) > 1:
            there = ", ".join(f"{known!r} ({counts[known]})" for known in sorted(alike))
            progress.warn(f"{file}: {tag!r} stands for all its spellings: {there}.")
    chosen: list[PlacedExemplar] = []
    both = 0
    for example in placed:
        is_unwanted = bool(unwanted & set(example.tags))
        is_wanted = bool(wanted & set(example.tags)) if training is not None else not is_unwanted
        if is_wanted and is_unwanted:
            both += 1
        elif is_unwanted:
            chosen.append(replace(example, exemplar=replace(example.exemplar, negative=True)))
        elif is_wanted:
            chosen.append(example)
    if both:
        verb = "was" if both == 1 else "were"
        progress.warn(f"{file}: {counted(both, 'object')} with both {training!r} and {negative!r} {verb} left out.")
    if all(example.exemplar.negative for example in chosen):
        raise InputError(f"{file} has no example left of what is wanted: all its objects carry {negative!r}.")
    return chosen


def _folded(tag: str) -> str:
    return tag.strip().casefold()


def _spellings(tag: str | None, exact: bool, counts: Counter[str], file: str, total: int) -> set[str]:
    """Return the tags in the file that are meant by a tag: by its very letters, or in any letter case."""
    if tag is None:
        return set()
    alike = {known for known in counts if (known == tag.strip() if exact else _folded(known) == _folded(tag))}
    if alike:
        return alike
    there = ", ".join(f"{known!r} ({n})" for known, n in counts.most_common(20)) or "none"
    whose = "its only object" if total == 1 else f"its {total} objects"
    raise InputError(f"No object in {file} has the tag {tag!r}. The tags of {whose} are: {there}.")
