"""What is said of corrected cases and of a run, in sentences."""

from __future__ import annotations

from ..i18n import _
from ..learning.following import ACTIVE, number
from .running import timeText

COUNTS = {
    "train": None,
    "validation": None,
    "new": lambda: _("{count} new"),
    "doubtful": lambda: _("{count} waiting for your decision"),
    "waiting": lambda: _("{count} unchanged, set aside"),
    "refused": lambda: _("{count} refused"),
    "replaced": lambda: _("{count} replaced by newer versions"),
}


def runText(run: dict, curve) -> str:
    """Name, state, step and time left of a run, and what it says itself."""
    names = {
        "preparing": _("is being prepared"),
        "training": _("is training"),
        "judging": _("is being compared with the model in use"),
        "done": _("is done"),
        "stopped": _("was stopped"),
        "failed": _("failed"),
        "lost": _("ended unexpectedly"),
    }
    state = str(run.get("state", ""))
    text = _("{run} {state}").format(run=run.get("run", "?"), state=names.get(state, state))
    step, steps, left = (number(run.get(name)) for name in ("step", "steps", "seconds_left"))
    if step is not None and steps and state != "done":
        text += _(", step {step} of {steps}").format(step=int(step), steps=int(steps))
    says = str(run.get("text") or "")
    if state in ("stopped", "lost"):  # it says the same in its own words
        says = _("It can be resumed.")
    if state == "training" and step:  # likewise
        says = ""
        text += _(", about {time} of training left").format(time=longTimeText(left)) if left is not None else ""
    lines = [text + ".", says]
    if state in ACTIVE and curve.note:
        lines.append(curve.note)
    return "\n".join(line for line in lines if line)


def longTimeText(seconds: float) -> str:
    """As timeText; trainings take hours."""
    minutes = round(seconds / 60)
    if minutes < 90:
        return timeText(seconds)
    return _("{hours} h {minutes} min").format(hours=minutes // 60, minutes=minutes % 60)


def unusedLines(row: dict) -> list[str]:
    """Why a case is not used: a line for each finding, with what to do."""
    states = {
        "refused": _("refused"),
        "waiting": _("set aside until there are more corrected cases: nothing was corrected in it"),
    }
    head = f"{row.get('name', '?')}: {states.get(row.get('status'), row.get('status'))}"
    found = row.get("findings")
    texts = []
    for finding in found if isinstance(found, list) else []:
        if isinstance(finding, dict):
            texts.append("; ".join(str(finding[name]) for name in ("text", "mend") if finding.get(name)))
        else:
            texts.append(str(finding))
    return [f"{head}: {text}" for text in texts] or [head]
