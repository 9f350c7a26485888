"""What a volume's name says: the namings of BraTS, and what scanners and people in clinics write."""

from __future__ import annotations

import re

from ..engine.shared import loadShared
from ..i18n import _

_T2 = re.compile(r"\b(?:3d|2d|ax|tra|sag|cor)?t2(?!\d)(\w*)")
_T1_SEQUENCES = re.compile(r"\b(?:3d)?(?:mprage|mp2rage|mpr|f?spgr|bravo|t1tfe|ffe3dt1)\b")
_FLAIR = re.compile(r"\b\w*flair\w*\b|\bt2f\b|\bdark\s*fluid\b|\btirm\b|\bfluid attenuated\b")
# other kinds of image, other parts of the body, and what was computed from images
_UNFIT = re.compile(
    r"\b(?:t2\s?star\w*|swi\w*|swan|dwi\w*|adc\w*|dti\w*|trace\w*|b\d{3,4}|tensor|fa|perf\w*|pwi|dsc|dce|asl|"
    r"bold|fmri|mra|tof|mrv|angio\w*|localizer|scout|survey|loc|mask|seg\w*|label\w*|truth|sub|subtract\w*|"
    r"subtraktion|mip|cbf|cbv|rcbv|mtt|ttp|phase|magnitude|fieldmap|ct|pet|spine|uncertainty|entropy|prob\w*|"
    r"c spine|hws|bws|lws|orbit\w*|neck|hals|sella|pituitary)\b"
)
_UNFIT_UNLESS_T1 = re.compile(r"\b(?:hemo|gre)\b")  # a T1 may well be a gradient echo
# BIDS entities and the time of an operation, whose "post" is no contrast agent
_TIME = re.compile(r"\b(?:ses|sub|run|acq|visit)\s(?!t[12])\w+|\b(?:pre|post)\s?(?:op|operativ\w*|surg\w*|rt|chemo)\b")

# of one examination some volumes have such words in their names and others have not
_TECHNIQUE = re.compile(
    r"\b(?:[23]d|ax\w*|tra|trans\w*|sag\w*|cor|coronal|kor\w*|obl\w*|iso|t?se|fse|tfe|ffe|t?ir|space|spc|cube|vista|"
    r"propeller|blade|fl[23]d|fs|fatsat|mri?|brain|head|w|wi|\d+ ?mm|reg\w*|resampled|bet|stripped)\b"
)


def judgeName(name: str) -> tuple[dict[str, float], list[str]]:
    """Scores (log odds, roughly) for the modalities, and the reasons in words; empty where the name says nothing."""
    words = loadShared("contrast_words")
    text = _TIME.sub(" ", words.normalise(name))
    t1, t2 = words.T1.search(text), _T2.search(text)
    if _UNFIT.search(text) or (not t1 and _UNFIT_UNLESS_T1.search(text)):
        return dict.fromkeys(("t1n", "t1c", "t2w", "t2f"), -6.0), [_("the name suggests another kind of image")]
    flair = _FLAIR.search(text)
    isT1 = bool(t1 or _T1_SEQUENCES.search(text))
    if flair and not (isT1 and not t2):  # "T1 FLAIR" is T1-weighted
        return {"t2f": 6.0, "t2w": -2.0, "t1n": -5.0, "t1c": -5.0}, [_("the name says FLAIR")]
    if t2 and not isT1:
        return {"t2w": 5.0, "t2f": -1.0, "t1n": -5.0, "t1c": -5.0}, [_("the name says T2")]
    said = words.agent_said(name)
    given = said == "with"
    if not isT1:
        if given:
            return {"t1c": 2.0, "t1n": -2.0}, [_("the name mentions contrast agent")]
        return {}, []
    scores = {"t1n": 3.0, "t1c": 3.0, "t2w": -5.0, "t2f": -5.0}
    if said == "both":
        return scores, [_("the name says T1, with and without contrast agent")]
    if not said:
        scores["t1n"] += 1.5
        scores["t1c"] -= 1.5
        return scores, [_("the name says T1, and nothing clear about contrast agent")]
    scores["t1c"] += 3.0 if given else -4.0
    scores["t1n"] += -4.0 if given else 3.0
    return scores, [
        _("the name says T1 with contrast agent") if given else _("the name says T1 without contrast agent")
    ]


def stemOf(name: str) -> str:
    """The name without what tells the modalities of one case apart: what the four volumes of a case have in common."""
    words = loadShared("contrast_words")
    text = words.normalise(name)
    for pattern in (_FLAIR, _T2, _T1_SEQUENCES):
        text = pattern.sub(" ", text)
    return words.without_agent(text)


def examinationIn(name: str) -> str:
    """What the name says of patient and date, as far as that can be told: its stem without words for techniques."""
    return " ".join(_TECHNIQUE.sub(" ", stemOf(name)).split())
