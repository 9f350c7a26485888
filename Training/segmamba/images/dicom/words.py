"""What the description of a series says, in the words that clinics write: what it is, and with or without agent.

English, German, French, Spanish, Italian, Portuguese, Dutch, Scandinavian, Polish, Turkish, Russian, Chinese,
Japanese, Korean; and the names that makers give their sequences.
"""

from __future__ import annotations

import re
import unicodedata

_AGENT = (
    r"gd|gado?\w*|dotarem|dotagraf|clariscan|prohance|magnevist|multihance|omniscan|gadovist|vueway|elucirem|"
    r"contras\w*|kontras\w*|km|cm|ce|mdc|inj\w*|civ|iv|контраст\w*|ку|гадо\w*"
)
_WITHOUT = re.compile(
    rf"\b(?:(?:without|wo|no|non|not|ohne|vor|sans|avant|sin|senza|sem|zonder|uten|utan|uden|bez|pre|before|minus|без|до)"
    rf"\s*(?:iv\s+)?(?:{_AGENT})|smdc|noncontrast\w*|nonenhanced|unenhanced|precontrast\w*|pregad\w*|pregd|"
    r"nativ\w*|basale|simple|blanco|plain|pre|kontrastsiz\w*)\b"
)
_WITH = re.compile(
    rf"\b(?:{_AGENT}|(?:post|pos|apres|nach|dopo|tras|na|efter|po|после|с)\s?(?:{_AGENT})|post|apres|postcontrast\w*|"
    r"poscontraste|postgad\w*|postgd|cmdc|enhanced|enh|plusc|kontrastli)\b"
)
_CJK_WITHOUT = re.compile("平扫|平掃|增强前|增強前|造影前|単純|조영\\s?전|비조영")
_CJK_WITH = re.compile("增强|增強|造影|강화|조영")
_CJK_FLAIR = re.compile("压水|壓水|抑水|水抑制|フレア")
_PLANE = r"(?:3d|2d|ax\w*|tra\w*|sag\w*|cor\w*|obl\w*)?"
_GLUED_WITH = re.compile(rf"(?:w|wi)?(?:c|k|post\w*|{_AGENT})")
_GLUED_WITHOUT = re.compile(r"(?:w|wi)?(?:n|nat\w*|pre\w*)")
_T1 = re.compile(rf"\b{_PLANE}t1(?![0-9])(\w*)")
_T2 = re.compile(rf"\b{_PLANE}t2(?![0-9])(\w*)")
_T1_SEQUENCES = re.compile(r"\b\w*(?:mprage|mp2?rage|bravo|spgr|t1tfe|ffe3dt1|vibe|tfl3d)\w*\b|\bmpr(?=.*\bt1)|\btfe\b")
_FLAIR = re.compile(r"\b\w*flair\w*\b|\bt2f\b|\bdark\s*fluid\b|\bdf\b|\bfluid\s*attenuated\b")
# "post" of an operation or a therapy, and what only looks like a word above
_TIME = re.compile(r"\b(?:pre|post)\s?(?:op|operat\w*|surg\w*|rt|rtx|chemo|radio\w*|therap\w*|treat\w*|proc\w*)\b")
_OTHER = (
    ("localizer", r"localizer|localiser|loc|scout|survey|plan\s?scan|locali[sz]\w*|smartbrain|aahead\w*|3\s?plane"),
    ("diffusion", r"dwi\w*|adc\w*|dti\w*|diff\w*|trace\w*|tracew|b\d{3,4}|tensor|fa|resolve|ivim|noddi|eadc"),
    ("perfusion", r"perf\w*|pwi|dsc|dce|asl|pasl|pcasl|cbf|cbv|rcbv|mtt|ttp|tmax|dynamic\w*"),
    ("susceptibility", r"t2\s?star\w*|swi\w*|swan|hemo\w*|haem\w*|t2fl2d|gre(?!.*\bt1)|medic|venobold"),
    ("an angiography", r"mra|tof\w*|mrv|angio\w*|inhance|pc3d|pca|vessel\w*"),
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
_OTHERS = tuple((what, re.compile(rf"\b(?:{words})\b")) for what, words in _OTHER)


def normalise(text: str) -> str:
    """Lower case, without accents, words parted by blanks; "+C" becomes "plusc", "T2*" "t2star", "w/o" "without"."""
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    text = unicodedata.normalize("NFKC", text).lower().replace("ı", "i").replace("ł", "l")
    text = re.sub(r"t2\s?\*", "t2star ", text)
    text = re.sub(r"\b(?:w\s?/\s?o|s/(?=\s?(?:c|gd|km)))", " without ", text)
    text = re.sub(r"\b[wc]/", " with ", text)
    text = re.sub(
        r"\+\s*(?:c|ce|gd|gad\w*|km|k|cm|mdc|contrast\w*|iv)?\b|(?<=[\s_-])c\s?\+|(?<=t1)c\+", " plusc ", text
    )
    text = re.sub(r"\+", " plusc ", text)
    text = re.sub(r"\biv\s?-(?!\w)", " without iv ", text)
    return " ".join(re.findall(r"[^\W_]+", text))


def other_kind(description: str) -> str:
    """What other kind of image the description names ('diffusion', 'a projection'), or ''."""
    text = normalise(description)
    for what, pattern in _OTHERS:
        if pattern.search(text) and not (what == "proton density" and _T2.search(text)):
            return what
    return ""


def weighting(description: str) -> str:
    """'flair', 't2', 't1' or ''."""
    text = normalise(description)
    t1, t2 = _T1.search(text), _T2.search(text)
    if (_FLAIR.search(text) or _CJK_FLAIR.search(description)) and not (t1 and not t2):  # "T1 FLAIR" is T1-weighted
        return "flair"
    if t1 or _T1_SEQUENCES.search(text):
        return "t1"
    return "t2" if t2 else ""


def agent(description: str) -> bool | None:
    """Whether contrast agent was given; None where the description says nothing, or both."""
    text = _TIME.sub(" ", normalise(description))
    glued = _T1.search(text)
    tail = glued[1] if glued else ""
    without = bool(_WITHOUT.search(text) or _GLUED_WITHOUT.fullmatch(tail) or _CJK_WITHOUT.search(description))
    rest = _CJK_WITHOUT.sub("", description)
    given = bool(_WITH.search(_WITHOUT.sub(" ", text)) or _GLUED_WITH.fullmatch(tail) or _CJK_WITH.search(rest))
    given |= bool(re.search(r"\bt1(?:w|wi)?\s+c\b", text))
    return None if given == without else given
