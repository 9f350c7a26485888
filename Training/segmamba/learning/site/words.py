"""What the gate found, in words for a person who has to decide."""

from __future__ import annotations

_VERDICTS = {
    "promote": "Better: the new model is recommended. It is better on this site's own cases and no worse on the "
    "anchor cases. Whether it is taken, a person decides.",
    "confirm": "Not worse: a person decides. Nothing forbids the new model, but {failed}.",
    "refuse": "Worse: the new model should not be taken: {failed}.",
}


def verdict_text(report: dict, *, shipped: bool) -> str:
    """The verdict on a candidate in words, and what its evidence is worth.

    report: what segmamba.learning.gate wrote. shipped: whether the anchor cases come with the program.
    """
    failed = "; ".join(f"{c['name']}: {c['text']}" for c in report["checks"] if not c["holds"])
    anchor, local = (len(report[part]["cases"]) for part in ("anchor", "local"))
    kind = "anchor cases that come with the program" if shipped else "anchor cases"
    lines = [_VERDICTS[report["verdict"]].format(failed=failed)]
    if looks := [f"{look['case']} ({look['text']})" for look in report.get("look_first", ())]:
        lines.append(f"Look first at {'; '.join(looks[:3])}.")
    lines.append(f"It was compared on {local} corrected case(s) that were kept from training, and on {anchor} {kind}.")
    if shipped:
        lines.append(
            "These are patients of other hospitals, whom the models that ship have learned from: they show what a "
            "new model has forgotten, not how it does on new patients. Better evidence: labelled patients of your own, "
            "by `segmamba anchor`."
        )
    if report["low_evidence"]:
        lines.append(f"Low evidence: {'; '.join(report['low_evidence'])}.")
    return " ".join(lines)
