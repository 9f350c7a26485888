"""What tests of figures share: results files, tables of Markdown, and a figure as exactly as it is printed."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "Testing" / "benchmarks" / "results"
README = ROOT / "README.md"
REGIONS = ("WT", "TC", "ET")


def results(name: str) -> dict:
    return json.loads((RESULTS / name).read_text())


def table_after(path: Path, first: str, heading: str = "") -> list[list[str]]:
    """Cells of the rows of the Markdown table whose head begins with `first`, the head first, without bold.

    heading: below which it is looked for.
    """
    lines = path.read_text().partition(heading)[2].splitlines() if heading else path.read_text().splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith(first))
    rows = []
    for line in lines[begin:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("**", "") for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


def same(cell: str, value: float) -> bool:
    """Whether a figure in a text is the value, as exactly as it is printed."""
    digits = len(cell.partition(".")[2])
    return abs(float(cell) - value) <= 0.5 * 10**-digits + 1e-9
