"""What kind of image the description of a series says that it is, in the words that clinics write.

English, German, French, Spanish, Italian, Portuguese, Dutch, Scandinavian, Polish, Turkish, Russian, Chinese,
Japanese, Korean; and the names that makers give their sequences.
"""

from __future__ import annotations

import re

from segmamba.shared.contrast_words import T1, normalise

_CJK_FLAIR = re.compile("压水|壓水|抑水|水抑制|フレア")
_PLANE = r"(?:3d|2d|ax\w*|tra\w*|sag\w*|cor\w*|obl\w*)?"
_T2 = re.compile(rf"\b{_PLANE}t2(?![0-9])(\w*)")
_T1_SEQUENCES = re.compile(r"\b\w*(?:mprage|mp2?rage|bravo|spgr|t1tfe|ffe3dt1|vibe|tfl3d)\w*\b|\bmpr(?=.*\bt1)|\btfe\b")
_FLAIR = re.compile(r"\b\w*flair\w*\b|\bt2f\b|\bdark\s*fluid\b|\bdf\b|\bfluid\s*attenuated\b")
_OTHER = (
    ("localizer", r"localizer|localiser|loc|scout|survey|plan\s?scan|locali[sz]\w*|smartbrain|aahead\w*|3\s?plane"),
    ("diffusion", r"dwi\w*|adc\w*|dti\w*|diff\w*|trace\w*|tracew|b\d{3,4}|tensor|fa|resolve|ivim|noddi|eadc"),
    ("perfusion", r"perf\w*|pwi|dsc|dce|asl|pasl|pcasl|cbf|cbv|rcbv|mtt|ttp|tmax|dynamic\w*"),
    ("susceptibility", r"t2\s?star\w*|swi\w*|swan|hemo\w*|haem\w*|t2fl2d|gre|medic|venobold"),
    ("an angiography", r"mra|cemra|tof\w*|mrv|angio\w*|inhance|pc3d|pca|vessel\w*"),
    ("functional", r"bold\w*|fmri\w*|rsfmri|ep2d\w*|epi|resting"),
    ("spectroscopy", r"svs|csi|mrs|press|spectro\w*"),
    ("a map or a mask", r"\w*map|maps|mask|seg\w*|label\w*|qsm|synthetic\w*|fieldmap|b0|b1|phase|pha"),
    ("a projection", r"mip|minip|mnip|mip\w+|vr|3d\s?render\w*"),
    ("a subtraction", r"sub|subtr\w*|subtrak\w*|soustr\w*|sustr\w*|sottr\w*"),
    ("proton density", r"pd|pdw\w*|dp"),
    ("STIR", r"stir"),
    ("steady state", r"ciss\w*|fiesta\w*|bffe|balanced|trufi\w*|true\s?fisp"),
    ("another part of the body", r"[ctl]\s?spine|spine|hws|bws|lws|rachis|orbit\w*|neck|hals|sella|hypoph\w*|pituit\w*|"
     r"iac|iam|kleinhirnbr\w*|tmj"),
    ("a picture of the screen", r"screen\w*|report|summary|key\s?images|dose\s?info|phoenix\w*"),
)  # fmt: skip
# a T1 may well be a gradient echo, or taken after haemorrhage; nor does a navigation system make another image of it
_ALSO_T1 = {"susceptibility"}
# words that may stand in the name of an image which a case can be made of: of what it was for, or of what came before
UNSURE = {"susceptibility", "perfusion", "an angiography", "another part of the body", "localizer", "steady state"}
_NEVER = re.compile(r"\b(?:t2\s?star\w*|swi\w*|swan|qsm|[ctl]\s?spine|spine|hws|bws|lws|rachis|tof\w*|mra|mrv)\b")
_OTHERS = tuple((what, re.compile(rf"\b(?:{words})\b")) for what, words in _OTHER)


def other_kind(description: str) -> str:
    """What other kind of image the description names ('diffusion', 'a projection'), or ''."""
    text = normalise(description)
    t1 = T1.search(text)
    for what, pattern in _OTHERS:
        if not pattern.search(text) or (what == "proton density" and _T2.search(text)):
            continue
        if not (what in _ALSO_T1 and t1 and not _NEVER.search(text)):
            return what
    return ""


def is_unsure(description: str) -> bool:
    """Whether `other_kind` goes by a word of UNSURE in a name that says T1, T2 or FLAIR: it may be none of the kind."""
    return (
        other_kind(description) in UNSURE and bool(weighting(description)) and not _NEVER.search(normalise(description))
    )


def weighting(description: str) -> str:
    """'flair', 't2', 't1' or ''."""
    text = normalise(description)
    t1, t2 = T1.search(text), _T2.search(text)
    if (_FLAIR.search(text) or _CJK_FLAIR.search(description)) and not (t1 and not t2):  # "T1 FLAIR" is T1-weighted
        return "flair"
    if t1 or _T1_SEQUENCES.search(text):
        return "t1"
    return "t2" if t2 else ""
