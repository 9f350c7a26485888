"""What the gate found, in words for a person who has to decide."""

from __future__ import annotations

_VERDICTS = {
    "promote": "Better: the new model is recommended. It is better on this site's own cases and no worse on the "
    "anchor cases. Whether it is taken, a person decides.",
    "confirm": "Not worse: a person decides. Nothing forbids the new model, but {failed}.",
    "refuse": "Worse: the new model should not be taken: {failed}.",
}


def verdict_text(report: dict, phantoms: bool) -> str:
    """The verdict on a candidate in words, and what its evidence is worth.

    report: what segmamba.learning.gate wrote. phantoms: whether the anchor cases are synthetic.
    """
    failed = "; ".join(f"{c['name']}: {c['text']}" for c in report["checks"] if not c["holds"])
    anchor, local = (len(report[part]["cases"]) for part in ("anchor", "local"))
    kind = "synthetic anchor cases" if phantoms else "anchor cases"
    lines = [_VERDICTS[report["verdict"]].format(failed=failed)]
    if looks := [f"{look['case']} ({look['text']})" for look in report.get("look_first", ())]:
        lines.append(f"Look first at {'; '.join(looks[:3])}.")
    lines.append(f"It was compared on {local} corrected case(s) that were kept from training, and on {anchor} {kind}.")
    if phantoms:
        lines.append(
            "Synthetic cases show only that the model still does what it could on such; they say nothing about "
            "patients of other hospitals. Better evidence: labelled patients of your own, by `segmamba anchor`."
        )
    if report["low_evidence"]:
        lines.append(f"Low evidence: {'; '.join(report['low_evidence'])}.")
    return " ".join(lines)
