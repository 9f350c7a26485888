"""What people read about a data set: a summary, and the table of what is wrong with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from segmamba.datasets.check import KINDS, Finding
from segmamba.datasets.manifest import Dataset
from segmamba.datasets.split import SPLIT, read_split
from segmamba.errors import InputError

_ROWS = 10  # of one kind


def summarise(dataset: Dataset) -> dict:
    """The data set as plain JSON, without its single cases."""
    split = None
    if (Path(dataset.folder) / SPLIT).exists():
        known = read_split(dataset)
        cases = defaultdict(int)
        for case in dataset.cases:
            cases[str(known.subjects.get(case.subject, "none"))] += 1
        split = {"kind": known.describe(), "cases": dict(sorted(cases.items()))}
    return {
        "name": dataset.name,
        "modalities": list(dataset.modalities),
        "labels": dataset.labels,
        "regions": {name: list(labels) for name, labels in dataset.regions.items()},
        "label_values": dataset.label_values,
        "fingerprint": dataset.fingerprint,
        "split": split,
        "left_out": dataset.left_out,
        "made": dataset.made,
    }


def format_summary(dataset: Dataset) -> str:
    """The fingerprint of a data set as tables for a terminal. Raises InputError where it has none, or a damaged one."""
    facts, split = dataset.fingerprint, summarise(dataset)["split"]
    if not facts:
        raise InputError(f"data set {dataset.folder} has no fingerprint; make it with `segmamba dataset init`")
    try:
        return _summary(dataset, facts, split)
    except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise InputError(
            f"data set {dataset.folder}: its fingerprint is damaged ({type(error).__name__}: {error}); make it anew "
            f"with `segmamba dataset init --update {dataset.folder}`"
        ) from None


def _summary(dataset: Dataset, facts: dict, split: dict | None) -> str:
    lines = [
        f"{dataset.name}: {facts['cases']} cases of {facts['subjects']} subjects, {facts['labelled']} with labels"
        + (f"; {len(dataset.left_out)} left out" if dataset.left_out else ""),
        "label files   " + ", ".join(f"{value} {name}" for value, name in dataset.label_values.items()),
        "regions       " + ", ".join(f"{name} = {' + '.join(of)}" for name, of in dataset.regions.items()),
        "orientation   " + ", ".join(f"{code} {count}" for code, count in facts["orientations"].items()),
        "",
        *_table(
            ["right, front, up", "median", "smallest", "largest"],
            [
                [name, *(" x ".join(f"{v:g}" for v in facts[key][part]) for part in ("median", "min", "max"))]
                for name, key in (("voxels", "shape"), ("foreground", "foreground_shape"), ("mm", "spacing"))
            ],
        ),
        "",
        *_table(
            ["intensity", "mean", "std", "0.5 %", "50 %", "99.5 %", "medians of cases"],
            [
                [m, *(f"{v:.4g}" for v in _intensity(pool)), "{:.4g} to {:.4g}".format(*pool["median_range"])]
                for m, pool in facts["intensities"].items()
            ],
        ),
        "",
        *_table(
            ["label", "cases", "median mL", "smallest", "largest", "% of voxels"],
            [
                [
                    name,
                    f"{found['cases']} of {found['of']}",
                    *(f"{found['ml'][k]:.4g}" if found["ml"] else "" for k in ("median", "min", "max")),
                    f"{100 * facts['voxel_shares'].get(name, 0):.3g}",
                ]
                for name, found in facts["labels"].items()
            ],
        ),
        "",
        "suggested     spacing {} mm, patch {} (model's axes D, H, W), normalisation {}".format(
            " x ".join(f"{v:g}" for v in facts["suggested"]["spacing"]),
            " x ".join(f"{v}" for v in facts["suggested"]["patch"]),
            facts["suggested"]["normalisation"],
        ),
    ]
    if split:
        parts = ", ".join(f"{part}: {count}" for part, count in split["cases"].items())
        lines.append(f"split         {split['kind']}; cases in {parts}")
    else:
        lines.append(f"split         none yet; `segmamba dataset split {dataset.folder}`")
    return "\n".join(lines)


def _intensity(pool: dict) -> list[float]:
    return [pool["mean"], pool["std"], *(pool["percentiles"][p] for p in ("0.5", "50", "99.5"))]


def format_findings(findings: Sequence[Finding], every: bool = False) -> str:
    """A row each; of one kind the first ten, unless `every`; then how to fix each kind."""
    kinds = defaultdict(list)
    for finding in findings:
        kinds[finding.kind].append(finding)
    rows = []
    for kind, found in kinds.items():
        shown = found if every or len(found) <= _ROWS + 1 else found[:_ROWS]
        rows += [[f.severity, f.case or "(all)", kind, f.text] for f in shown]
        if len(found) > len(shown):
            rows.append([found[0].severity, "...", kind, f"and {len(found) - len(shown)} more; --all shows them"])
    remedy = [[kind, KINDS[kind][1]] for kind in kinds]
    return "\n".join(
        [*_table(["severity", "case", "what", "found"], rows), "", *_table(["what", "how to fix it"], remedy)]
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header) - 1)]
    return [
        "  ".join([*(str(cell).ljust(width) for cell, width in zip(row, widths)), str(row[-1])]).rstrip()
        for row in [header, *rows]
    ]
