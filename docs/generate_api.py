"""Write ``api.md`` from the docstrings of what the package offers: ``python docs/generate_api.py``."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import sam2_fewshot

TARGET = Path(__file__).with_name("api.md")

_HEAD = """# Python

Generated from the docstrings by `docs/generate_api.py`; do not edit. All names are those of `sam2_fewshot`; the
settings have [a page of their own](settings.md), and the [tutorial](tutorials/python.md) shows them at work.
Coordinates are `(x, y)` in image pixels, and the centre of the first pixel is (0.5, 0.5).
"""

_UNDERLINED = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)
_ROLE = re.compile(r":(?:class|mod|meth|func|data|attr):`~?([^`]+)`")


def api_page() -> str:
    """Return the page."""
    public = [getattr(sam2_fewshot, name) for name in sam2_fewshot.__all__ if not name.startswith("_")]
    classes = sorted(public, key=lambda item: (issubclass(item, Exception), item.__name__ != "FewShotSegmenter"))
    return "\n".join([_HEAD.rstrip(), *map(_described, classes)]) + "\n"


def _described(item: type[Any]) -> str:
    lines = ["", f"## {item.__name__}", "", _text(item)]
    if issubclass(item, Exception) or item.__name__ == "Settings":
        return "\n".join(lines)
    for name, member in vars(item).items():
        plain = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if name.startswith("_") or not (inspect.isfunction(plain) or isinstance(plain, property)) or not plain.__doc__:
            continue
        heading = name if isinstance(plain, property) else f"{name}({_arguments(plain)})"
        lines += ["", f"### `{item.__name__}.{heading}`", "", _text(plain)]
    return "\n".join(lines)


def _arguments(function: Any) -> str:
    """Return the arguments' names with their defaults; the types are in the docstring."""
    arguments = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in arguments:
            arguments.append("*")
        default = parameter.default
        arguments.append(name if default is inspect.Parameter.empty else f"{name}={default!r}")
    return ", ".join(arguments)


def _reference(role: re.Match[str]) -> str:
    """Return what is referred to by its name, or by its path where it is not on the page under that name."""
    name = role[1].rpartition(".")[2]
    return f"`{name if name in sam2_fewshot.__all__ or hasattr(sam2_fewshot.FewShotSegmenter, name) else role[1]}`"


def _text(item: Any) -> str:
    """Return a docstring as Markdown: sections in bold, definitions as a list."""
    text = _ROLE.sub(_reference, inspect.getdoc(item) or "")
    parts = _UNDERLINED.split(text.replace("``", "`"))
    lines = [parts[0].strip()]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        lines += ["", f"**{title}**", ""]
        if title == "Examples":
            code = [line.replace("  # doctest: +SKIP", "") for line in body.strip().splitlines()]
            lines += ["```python", *(line.removeprefix(">>> ").removeprefix("... ") for line in code), "```"]
            continue
        for line in body.strip().splitlines():
            if not line.strip():
                continue
            lines.append(f"  {line.strip()}" if line.startswith(" ") else f"- `{line.strip()}`:")
    return "\n".join(lines)


if __name__ == "__main__":
    TARGET.write_text(api_page(), encoding="utf-8")
