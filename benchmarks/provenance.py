"""What a file of results begins with, so that its figures can be made again, and how it is written."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def provenance(benchmark: str, arguments: Sequence[str], commit: str = "") -> dict[str, Any]:
    """Return when, with which command and from which commit figures are made.

    Parameters
    ----------
    benchmark
        Name of the module.
    arguments
        Its words of the command line.
    commit
        What to record where there is no git; the commit that is checked out when empty.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m", benchmark, *arguments]),
        "commit": commit or _checked_out(),
    }


def write(path: Path | None, facts: dict[str, Any]) -> None:
    """Write what is known so far, whole or not at all; nothing without a path."""
    if path:
        beside = path.with_name(f".{path.name}.part")
        beside.write_text(json.dumps(facts, indent=1) + "\n")
        beside.replace(path)


def _checked_out() -> str:
    """Return the commit that is checked out, with a plus sign when files differ from it."""
    here = ["git", "-C", str(Path(__file__).parent)]

    def ask(*words: str) -> str:
        return subprocess.run([*here, *words], capture_output=True, text=True, check=False).stdout.strip()

    found = ask("rev-parse", "--short", "HEAD")
    return found + ("+" if ask("status", "--porcelain") else "") if found else "unknown"
