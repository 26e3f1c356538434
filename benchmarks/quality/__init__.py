"""The few-shot protocol: how well a method finds one class of objects from a few examples of it.

k examples of one class are taken from the first frames of a group of images, and the class is looked for in the
group's other frames. All methods of a run see the same examples and the same queries, and share one loaded model.
From the repository's root (with the package installed, or ``src`` on ``PYTHONPATH``)::

    python -m benchmarks.quality --data DATA --quick
    python -m benchmarks.quality --data DATA --methods grid floor grid:points_per_side=64,negatives=5 --json out.json
    python -m benchmarks.quality --data DATA --list

DATA holds ``dev/`` and ``fewshot/``, a folder a dataset, with ``NAME.png``, ``NAME_labels.png`` (0 is background) and,
where there are classes, ``NAME_classes.json`` (``{"instance id": "class"}``). Without it only the generated
look-alike scenes are run. What the columns mean is said in :mod:`benchmarks.quality.figures` and under each table.
"""
