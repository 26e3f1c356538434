"""What a job does when servers, gateways and other jobs fail it, as a table.

    python -m benchmarks.faults [--scale 0.05] [--only "504"]

Each fault befalls a small dataset on a server of its own, in this process: 12 objects on three frames, each to be
connected and given figures. Told: how the jobs ended, and what is in the dataset then; and after one more job without
a fault, what is lost and what is double, as objects + connections + documents of figures. The exit code is 1 if
anything is. The scenarios are those of the tests (``tests/nimbus/contract_server/faults.py``).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "nimbus"), str(TESTS)]


def main() -> int:
    """Run what was asked for, and print a line each."""
    from contract_server.faults import carry_out, head, row, scenarios

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of all times; 1 is a real gateway's")
    parser.add_argument("--only", default="", help="faults with this in their names")
    given = parser.parse_args()
    print(head(), flush=True)
    is_clean = True
    for scenario in scenarios():
        if given.only in scenario.name:
            result = carry_out(scenario, given.scale)
            print(row(scenario, result), flush=True)
            is_clean &= result.is_clean
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
