"""The report's page: a template, a style sheet and scripts from ``assets/``, inlined into one file."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from sam2_fewshot.output.finished import read_finished
from sam2_fewshot.report.content import Content, gather
from sam2_fewshot.runner.progress import duration
from sam2_fewshot.settings import Settings, condition_of, unit_of
from sam2_fewshot.storage.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REPORT = "report.html"
"""Name of the file in the output folder."""

_SCRIPTS = ("data.js", "draw.js", "marks.js", "choice.js", "viewer.js", "gallery.js", "main.js")


def write_report(out: Path) -> Path:
    """Write ``report.html`` from what is finished in an output folder.

    Images are not read: the journal has the objects and a small picture of each frame.

    Parameters
    ----------
    out
        The output folder.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If the folder holds no results, or the file cannot be written.
    """
    while True:
        finished = read_finished(out)
        page = render(gather(finished), finished.facts)
        # A run that has ended meanwhile has its own page, which that of the results before must not replace.
        if json.dumps(read_finished(out).facts) == json.dumps(finished.facts):
            break
    write_whole(out / REPORT, page.encode())
    return out / REPORT


def render(content: Content, facts: Mapping[str, Any]) -> str:
    """Return the page.

    Nothing in it is loaded from elsewhere, and nothing but its own script can run: the content security policy
    (https://www.w3.org/TR/CSP3/) names the script and the style sheet by their hashes, the template escapes every
    text, and data lies in script elements of types that are not executed, as base 64 or as JSON without ``<``.

    Parameters
    ----------
    content
        What to display.
    facts
        Content of ``run.json``.
    """
    script = "(() => {\n'use strict';\n" + "\n".join(map(_asset, _SCRIPTS)) + "\n})();\n"
    style = _asset("style.css")
    policy = (
        f"default-src 'none'; img-src data:; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    text: str = _template().render(
        content=content,
        facts=facts,
        policy=policy,
        script=_trusted(script),
        style=_trusted(style),
        data=_trusted(_json(content.data)),
        settings=_settings(facts["settings"], bool(facts.get("object_model"))),
        seconds=_bars(facts.get("seconds", {})),
        # Where scores lie so close together that the margin has become this small, the script gives them three digits.
        marginal=_figure(content.overview.margin, 2 if content.overview.margin > 0.03 else 3),
    )
    return text


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_asset),
    )
    environment.filters["figure"] = _figure
    environment.filters["seconds"] = duration
    return environment.get_template("page.html")


def _asset(name: str) -> str:
    return (files("sam2_fewshot.report") / "assets" / name).read_text("utf-8")


def _trusted(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # our own files, and JSON that _json has made harmless


def _json(data: object) -> str:
    # "<" would end the script element; "&" and ">" are escaped for old parsers.
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _settings(used: Mapping[str, Any], learned_before: bool) -> dict[str, list[dict[str, object]]]:
    """Return the settings as rows, those that differ from the default first: ``used``, and those that were ``idle``."""
    rows: dict[str, list[dict[str, object]]] = {"used": [], "idle": []}
    for name, value in used.items():
        field = Settings.model_fields.get(name)
        condition = condition_of(field) if field else None
        idle = name == "max_examples" and learned_before
        if condition:
            other = used.get(condition.setting, Settings.model_fields[condition.setting].default)
            idle = other != condition.value
        rows["idle" if idle else "used"].append(
            {
                "title": field.title if field else name,
                "value": "automatic" if value is None else value,
                "unit": unit_of(field) if field else "",
                "option": "--" + name.replace("_", "-"),
                "changed": field is not None and value != field.default,
            }
        )
    return {kind: sorted(part, key=lambda row: not row["changed"]) for kind, part in rows.items()}


def _bars(seconds: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Return each stage with its seconds and its share of all."""
    total = sum(seconds.values()) or 1.0
    return [(stage, time, time / total) for stage, time in seconds.items()]


def _figure(value: float, digits: int = 2) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if digits == 0 else f"{value:.{digits}f}"
