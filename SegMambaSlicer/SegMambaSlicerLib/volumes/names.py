"""What a volume's name says: the namings of BraTS, and what scanners and people in clinics write."""

from __future__ import annotations

import re
import unicodedata

from ..i18n import _

_AGENTS = r"gd|gad\w*|dotarem|dotagraf|clariscan|prohance|magnevist|multihance|omniscan|primovist"
_CONTRAST = rf"contrast\w*|kontrast\w*|km|cm|ce|inj\w*|{_AGENTS}"
# "without contrast", "ohne KM", "avant injection", "pre", "nativ"
_WITHOUT = re.compile(
    rf"\b(?:(?:without|wo|no|non|ohne|vor|sans|avant|pre|before|minus)\s*(?:iv\s+)?(?:{_CONTRAST})"
    r"|noncontrast\w*|nonenhanced|unenhanced|precontrast|pregad\w*|pregd|nativ\w*|plain|pre)\b"
)
_WITH = re.compile(
    rf"\b(?:{_CONTRAST}|post(?:{_CONTRAST})?|postcontrast|apres|nach|enhanced|enh|plusc)\b|\bt1(?:w|wi)?\s+c\b"
)
# the ending of "T1c", "T1ce", "T1Gd", "t1km", "T1post" when written in one word
_GLUED_WITH = re.compile(rf"^(?:w|wi)?(?:c|ce\w*|cm|km|k|post\w*|contrast\w*|{_AGENTS})$")
_GLUED_WITHOUT = re.compile(r"^(?:w|wi)?(?:n|nat\w*|pre\w*)$")
_T1 = re.compile(r"\b(?:3d|2d|ax|tra|sag|cor)?t1(?!\d)(\w*)")
_T2 = re.compile(r"\b(?:3d|2d|ax|tra|sag|cor)?t2(?!\d)(\w*)")
_T1_SEQUENCES = re.compile(r"\b(?:3d)?(?:mprage|mp2rage|mpr|f?spgr|bravo|t1tfe|ffe3dt1)\b")
_FLAIR = re.compile(r"\b\w*flair\w*\b|\bt2f\b|\bdark\s*fluid\b|\btirm\b|\bfluid attenuated\b")
# other kinds of image, other parts of the body, and what was computed from images
_UNFIT = re.compile(
    r"\b(?:t2\s?star\w*|swi\w*|swan|hemo|gre|dwi\w*|adc\w*|dti\w*|trace\w*|b\d{3,4}|tensor|fa|perf\w*|pwi|dsc|dce|asl|"
    r"bold|fmri|mra|tof|mrv|angio\w*|localizer|scout|survey|loc|mask|seg\w*|label\w*|truth|sub|subtract\w*|"
    r"subtraktion|mip|cbf|cbv|rcbv|mtt|ttp|phase|magnitude|fieldmap|ct|pet|spine|uncertainty|entropy|prob\w*|"
    r"c spine|hws|bws|lws|orbit\w*|neck|hals|sella|pituitary)\b"
)
# BIDS entities and the time of an operation, whose "post" is no contrast agent
_TIME = re.compile(r"\b(?:ses|sub|run|acq|visit)\s(?!t[12])\w+|\b(?:pre|post)\s?(?:op|operativ\w*|surg\w*|rt|chemo)\b")


def normalise(name: str) -> str:
    """Lower case, plain letters, words parted by blanks; "+C" becomes "plusc", "T2*" "t2star", "w/o" "without"."""
    text = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    text = re.sub(r"t2\s?\*", "t2star ", text)
    text = re.sub(r"\bw/?\s?o\b", " without ", text)
    text = re.sub(r"\bw/", " with ", text)
    text = re.sub(r"\+\s*(?:c|ce|gd|gad|km|k|cm)\b|(?<=[\s_-])c\s?\+|\+\s?contrast", " plusc ", text)
    text = re.sub(r"(t1\w*)c\+", r"\1 plusc ", text)
    return " ".join(re.findall(r"[a-z0-9]+", text))


def judgeName(name: str) -> tuple[dict[str, float], list[str]]:
    """Scores (log odds, roughly) for the modalities, and the reasons in words; empty where the name says nothing."""
    text = _TIME.sub(" ", normalise(name))
    if _UNFIT.search(text):
        return dict.fromkeys(("t1n", "t1c", "t2w", "t2f"), -6.0), [_("the name speaks of another kind of image")]
    t1, t2 = _T1.search(text), _T2.search(text)
    flair = _FLAIR.search(text)
    isT1 = bool(t1 or _T1_SEQUENCES.search(text))
    if flair and not (isT1 and not t2):  # "T1 FLAIR" is T1-weighted
        return {"t2f": 6.0, "t2w": -2.0, "t1n": -5.0, "t1c": -5.0}, [_("the name says FLAIR")]
    if t2 and not isT1:
        return {"t2w": 5.0, "t2f": -1.0, "t1n": -5.0, "t1c": -5.0}, [_("the name says T2")]
    without = bool(_WITHOUT.search(text) or (t1 and _GLUED_WITHOUT.match(t1[1])))
    given = bool(_WITH.search(_WITHOUT.sub(" ", text)) or (t1 and _GLUED_WITH.match(t1[1])))
    if not isT1:
        if given and not without:
            return {"t1c": 2.0, "t1n": -2.0}, [_("the name speaks of contrast agent")]
        return {}, []
    scores = {"t1n": 3.0, "t1c": 3.0, "t2w": -5.0, "t2f": -5.0}
    if given == without:  # neither, or "with and without"
        lean = -0.5 if given else 1.5
        scores["t1n"] += lean
        scores["t1c"] -= lean
        return scores, [_("the name says T1, and nothing clear about contrast agent")]
    scores["t1c"] += 3.0 if given else -4.0
    scores["t1n"] += -4.0 if given else 3.0
    return scores, [
        _("the name says T1 with contrast agent") if given else _("the name says T1 without contrast agent")
    ]


def stemOf(name: str) -> str:
    """The name without what tells the modalities of one case apart: what the four volumes of a case have in common."""
    text = normalise(name)
    for pattern in (_FLAIR, _T1, _T2, _T1_SEQUENCES, _WITHOUT, _WITH):
        text = pattern.sub(" ", text)
    return " ".join(text.split())
