"""The verdict of the gate for people, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

_VERDICTS = {
    "promote": "**Better: recommended.** Every criterion holds; a person takes it, with one command.",
    "confirm": "**Not worse: a person decides.** Nothing forbids it, but a criterion marked *look* does not hold.",
    "refuse": "**Worse: not recommended.** A criterion does not hold.",
}


def format_report(report: dict) -> str:
    """What segmamba.learning.gate wrote into gate.json -> Markdown."""
    candidate, champion = report["candidate"], report["champion"]
    lines = [
        f"# {candidate['id']} against {champion['id']}",
        "",
        _VERDICTS[report["verdict"]],
        "",
        f"Candidate {candidate['id']} ({candidate['weights_sha256'][:12]}, from {candidate['parent'] or 'scratch'}); "
        f"in use {champion['id']} ({champion['weights_sha256'][:12]}). Research use only.",
        "",
        *(f"- low evidence: {text}" for text in report["low_evidence"]),
        *(f"- {text}" for text in report["notes"]),
        "",
        *_looks(report.get("look_first", ())),  # reports of earlier versions have none
        "## Criteria, set before the comparison",
        "",
        "| criterion | holds | found |",
        "|---|---|---|",
        *(f"| {c['name']} | {_holds(c)} | {c['text']} |" for c in report["checks"]),
    ]
    for name, title in (("anchor", "Anchor set"), ("local", "Local validation cases")):
        part = report[name]
        if part["comparison"]:
            lines += ["", f"## {title}: {part['dataset']}, {len(part['cases'])} cases", "", *_means(part), ""]
            lines += _cases(part)
    return "\n".join(lines) + "\n"


def _looks(looks: Sequence[dict]) -> list[str]:
    if not looks:
        return []
    return ["## Look at first", "", *(f"- {look['case']} ({look['part']}): {look['text']}" for look in looks), ""]


def _holds(check: dict) -> str:
    return "yes" if check["holds"] else "**no**" if check["otherwise"] == "refuse" else "**look**"


def _means(part: dict) -> list[str]:
    lines = ["| | in use | candidate | change | 95 % interval | better / worse |", "|---|---|---|---|---|---|"]
    names = {"dice": "Dice", "lesion_dice": "Dice by lesion", "false_positives": "false positives"}
    for metric, regions in part["comparison"].items():
        for region, row in regions.items():
            ends = "" if row["ci95"] is None else f"{row['ci95'][0]:+.3f} to {row['ci95'][1]:+.3f}"
            lines.append(
                f"| {names[metric]} {region} | {row['a']:.3f} | {row['b']:.3f} | {row['difference']:+.3f} | {ends} | "
                f"{row['better']} / {row['worse']} |"
            )
    return lines


def _cases(part: dict) -> list[str]:
    before, after = part["champion"], part["candidate"]
    regions = list(next(iter(before.values()))["dice"])
    lines = [f"| Dice, in use to candidate | {' | '.join(regions)} |", "|---" * (1 + len(regions)) + "|"]
    for case in before:
        cells = (f"{before[case]['dice'][r]:.3f} to {after[case]['dice'][r]:.3f}" for r in regions)
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return lines
