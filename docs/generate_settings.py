"""Write ``settings.md`` from :class:`sam2_fewshot.Settings`: ``python docs/generate_settings.py``."""

from __future__ import annotations

from pathlib import Path

from sam2_fewshot.settings import Settings, group_of, limits_in_words

TARGET = Path(__file__).with_name("settings.md")

_HEAD = """# Settings

Generated from `sam2_fewshot.Settings` by `docs/generate_settings.py`; do not edit. On the command line each is an
option (`points_per_side` is `--points-per-side`), in a YAML file for `--config` a line (`points_per_side: 64`, or with
its title, `Points per side: 64`), in
Python an argument of `Settings`.
"""


def settings_page() -> str:
    """Return the page: a table for each group of settings."""
    groups: dict[str, list[str]] = {}
    for name, field in Settings.model_fields.items():
        if field.annotation is bool:
            allowed = "`True`, `False`"
        elif not (allowed := limits_in_words(field).removeprefix("from ")):
            allowed = ", ".join(f"`{choice}`" for choice in getattr(field.annotation, "__args__", ()))
        default = "by checkpoint" if field.default is None else f"`{field.default}`"
        row = f"| `{name}` | {field.title} | {allowed} | {default} | {field.description} |"
        groups.setdefault(group_of(field), []).append(row)
    tables = [
        "\n".join(
            [
                "",
                f"## {group.capitalize()}",
                "",
                "| name | title | allowed | default | what |",
                "|---|---|---|---|---|",
                *rows,
            ]
        )
        for group, rows in groups.items()
    ]
    return "\n".join([_HEAD.rstrip(), *tables]) + "\n"


if __name__ == "__main__":
    TARGET.write_text(settings_page(), encoding="utf-8")
