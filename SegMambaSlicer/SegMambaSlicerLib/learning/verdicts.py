"""The gate's gate.json and the history of the registry, as texts and rows of a table. Either may be broken."""

from __future__ import annotations

import re
import time
from pathlib import Path

from ..i18n import _
from .following import number, readObject

_EVENTS = {
    "start": lambda: _("first model"),
    "add": lambda: _("candidate"),
    "promote": lambda: _("promoted"),
    "refuse": lambda: _("refused"),
    "adopt": lambda: _("adopted"),
    "rollback": lambda: _("back to"),
}

_LOOKS = 3  # cases named at most: as many as the gate draws, so that each has its picture
_TAKEN = ("start", "promote", "adopt", "rollback")  # events after which a model is the one in use


class Evidence:
    """report: the contents of gate.json; {} for a model that was not judged, or whose report `isUnreadable`.

    inUse: id of the model in use, where it is known.
    """

    def __init__(self, report: dict, inUse: str | None = None, isUnreadable: bool = False):
        self._report = report
        self._inUse = inUse
        self.isUnreadable = isUnreadable

    @property
    def verdict(self) -> str:
        """ "promote", "confirm", "refuse", or "" where there is none."""
        return str(self._report.get("verdict") or "")

    @property
    def verdictText(self) -> str:
        if self.isUnreadable:
            return _unreadable()
        words = {
            "promote": _("The gate: better than {model}. Every criterion is met."),
            "confirm": _("The gate: not worse than {model}. A person decides."),
            "refuse": _("The gate: worse than {model}. A criterion is not met."),
            "": _("Not compared with the model in use yet."),
        }
        lines = [words.get(self.verdict, self.verdict).replace("{model}", self.comparedWith)]
        if self._other:
            lines.append(_("It was compared with {name}, which is no longer in use.").format(name=self._other))
        looks = [f"{case} ({text})" if text else case for case, text in list(self.lookFirst.items())[:_LOOKS]]
        if looks:
            lines.append(_("Look first at {cases}.").format(cases="; ".join(looks)))
        for text in _texts(self._report.get("low_evidence")):
            lines.append(_("Low evidence: {text}").format(text=text))
        return "\n".join(lines)

    @property
    def lookFirst(self) -> dict[str, str]:
        """Case -> what became worse in it, the largest loss first."""
        looks = [look for look in _list(self._report.get("look_first")) if isinstance(look, dict)]
        return {str(look["case"]): str(look.get("text") or "") for look in looks if look.get("case")}

    def isOwn(self, case: str) -> bool:
        """Whether the case is one of the site's corrected ones, kept from training."""
        cases = {part: self._report.get(part) for part in ("local", "anchor")}
        cases = {part: found.get("cases") if isinstance(found, dict) else None for part, found in cases.items()}
        isIn = {part: isinstance(found, dict) and case in found for part, found in cases.items()}
        return isIn["local"] and not isIn["anchor"]

    def picturesOf(self, folder: Path) -> list[Path]:
        """What the gate drew of cases: those to look at first in front, then the site's own."""
        order = list(self.lookFirst)

        def place(path: Path) -> tuple[int, bool, str]:
            case = caseOf(path)
            return (order.index(case) if case in order else len(order), not self.isOwn(case), case)

        return sorted(folder.glob("gate-*.png"), key=place)

    @property
    def criteriaText(self) -> str:
        """Criteria that do not hold, notes, then the criteria that hold."""
        checks = [check for check in _list(self._report.get("checks")) if isinstance(check, dict)]
        failed = [check for check in checks if not check.get("holds")]
        met = [check for check in checks if check.get("holds")]
        lines = [_("NOT MET: {name}: {text}").format(name=c.get("name"), text=c.get("text")) for c in failed]
        lines += [_("Note: {text}").format(text=text) for text in _texts(self._report.get("notes"))]
        lines += [_("met: {name}: {text}").format(name=c.get("name"), text=c.get("text")) for c in met]
        return "\n".join(lines)

    @property
    def comparedWith(self) -> str:
        """The model that it was judged beside, for a sentence: the one in use, or the name of an earlier one."""
        return self._other or _("the model in use")

    @property
    def _other(self) -> str:
        """The name of the model that it was compared with, where that is no longer in use; else ""."""
        champion = self._report.get("champion")
        judged = champion.get("id") if isinstance(champion, dict) else None
        return plainName(judged) if self._inUse and judged and judged != self._inUse else ""

    @property
    def noPromotionReason(self) -> str:
        """Why it cannot be promoted by its verdict; "" where it can."""
        if self.isUnreadable:
            return _unreadable()
        if not self.verdict:
            return _("The gate has not judged it yet.")
        if self.verdict == "confirm":
            return _("The gate asks a person to decide: look at the cases, then adopt it with a reason, or refuse it.")
        if self.verdict != "promote":
            return _("The gate refuses it. To use it nevertheless, enter a reason and adopt it.")
        if self._other:
            return _("It was compared with {name}, which is no longer in use.").format(name=self._other)
        return ""


def caseOf(picture: Path) -> str:
    """The case that a picture of the gate is of."""
    return picture.stem.partition("-")[2]


def rowsOf(report: dict) -> list[tuple[str, ...]]:
    """Rows of the table: of one text, the title of a set of cases; of five, a region: its name, Dice before and after,
    the change with its interval, false positives before and after, the case that lost most. Two lines in a cell."""
    rows: list[tuple[str, ...]] = []
    titles = {"anchor": _("Anchor set: {name}, {count} cases"), "local": _("Own cases: {name}, {count} cases")}
    for part, title in titles.items():
        found = report.get(part)
        if not isinstance(found, dict) or not isinstance(found.get("comparison"), dict):
            continue
        dice, false = (found["comparison"].get(name) for name in ("dice", "false_positives"))
        if not isinstance(dice, dict):
            continue
        cases = found.get("cases")
        rows.append((title.format(name=found.get("dataset"), count=len(cases) if isinstance(cases, dict) else "?"),))
        rows += [_row(region, of, (false or {}).get(region)) for region, of in dice.items() if isinstance(of, dict)]
    return rows


def readReport(folder: Path | None) -> dict:
    """What the gate wrote beside a model; {} where it wrote nothing or it cannot be read."""
    try:
        return (readObject(folder / "gate.json") if folder is not None else None) or {}
    except OSError:
        return {}


def hasReport(folder: Path | None) -> bool:
    """Whether the gate wrote something there, which `readReport` may fail to read."""
    try:
        return folder is not None and (folder / "gate.json").is_file()
    except OSError:
        return True


def eventsOf(models: dict) -> list[dict]:
    """models: as `segmamba status` says it."""
    return [event for event in _list(models.get("history")) if isinstance(event, dict)]


def plainName(model: str) -> str:
    """The name of a model of the registry without the digits of its hash: "quick-2" of "quick-2-aaaaaaaaaaaa"."""
    return re.sub(r"-[0-9a-f]{12}$", "", str(model))


def sinceText(models: dict) -> str:
    """The day on which the model in use was taken into use; "" where it is not known."""
    taken = [e for e in eventsOf(models) if e.get("what") in _TAKEN and e.get("model") == models.get("champion")]
    seconds = number(taken[-1].get("time")) if taken else None
    return time.strftime("%Y-%m-%d", time.localtime(seconds)) if seconds else ""


def historyText(models: dict) -> str:
    """A line for each event, the newest first: when, what, which model, why."""
    return "\n".join(_line(event) for event in reversed(eventsOf(models)))


def _unreadable() -> str:
    return _("The gate's report cannot be read.")


def _line(event: dict) -> str:
    what, seconds = _EVENTS.get(str(event.get("what"))), number(event.get("time"))
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""
    words = [when, what() if what else str(event.get("what", "")), plainName(event.get("model", ""))]
    line = "  ".join(word for word in words if word)
    isSaid = not event.get("reason") or event.get("what") == "start"  # "the first model" once more
    return line if isSaid else f"{line}: {event['reason']}"


def _row(region: str, dice: dict, false: object) -> tuple[str, ...]:
    change = _signed(dice.get("difference"))
    ends = dice.get("ci95")
    if isinstance(ends, list) and len(ends) == 2:
        change += "\n" + _("{low} to {high}").format(low=_signed(ends[0]), high=_signed(ends[1]))
    false = false if isinstance(false, dict) else {}
    positives = _fromTo(false, 2) if false else "\u2013"
    worst = next((entry for entry in _list(dice.get("worst")) if isinstance(entry, dict)), None)
    lost = "\u2013"
    if worst is not None:
        lost = f"{worst.get('case')}\n{_plain(worst.get('a'), 2)} \u2192 {_plain(worst.get('b'), 2)}"
    return (str(region), _fromTo(dice, 3), change, positives, lost)


def _fromTo(found: dict, digits: int) -> str:
    return f"{_plain(found.get('a'), digits)}\n\u2192 {_plain(found.get('b'), digits)}"


def _plain(value: object, digits: int) -> str:
    value = number(value)
    return "?" if value is None else f"{value:.{digits}f}"


def _signed(value: object) -> str:
    value = number(value)
    return "?" if value is None else f"{value:+.3f}"


def _list(value: object) -> list:
    return value if isinstance(value, (list, tuple)) else []


def _texts(value: object) -> list[str]:
    return [str(text) for text in _list(value)]
