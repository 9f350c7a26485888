"""With or without contrast agent, in the words and signs that clinics and data sets write.

English, German, Dutch, Scandinavian, Finnish, French, Spanish, Portuguese, Italian, Romanian, Polish, Czech, Croatian,
Hungarian, Turkish, Russian, Greek, Arabic, Chinese, Japanese, Korean.
"""

from __future__ import annotations

import re
import unicodedata

# what the agent, or giving it, is called
_AGENT = (
    r"c|ce|km|k|cm|mdc|kl|ku|kv|gd\w*|gad\w*|cont|contr|contra|contras\w*|kontr|kontras\w*|cte|iv|ivkm|civ|inj|inject\w*|"
    r"inyec\w*|iniezione|iniett\w*|dotarem\w*|dotagraf|clariscan|prohance|magnevist|multihance|omniscan|vueway|"
    r"elucirem|primovist|varjoaine\w*|tehoste\w*|контр\w*|гадо\w*|ку|кв|σκιαγρ\w*"
)
_WITHOUT = (
    r"without|wo|no|non|not|un|minus|before|pre|ohne|o|vor|v|sans|ss|avant|sin|senza|prima|sem|antes|fara|inainte|zonder|"
    r"voor|uten|utan|uden|for|fore|ilman|ennen|bez|przed|pred|prije|prior|без|до|χωρισ|προ"
)
_WITH = (
    r"with|w|post|after|plus|mit|nach|n|m|avec|apres|con|tras|despues|com|pos|apos|depois|dopo|cu|dupa|met|na|med|efter|"
    r"etter|po|z|s|sa|ile|с|после|με|μετα"
)
_FILLER = r"(?:(?:iv|i v|any|produit|the|de|del|di|of|da|al|el|intravenous|administration)\s+)*"
# alone they say it too, unless it is fat, motion or the like that they are about
_ALONE_WITHOUT = r"without|wo|ohne|sans|senza|sem|zonder|uten|utan|uden|ilman|bez|без"
_ALONE_WITH = r"with|mit|avec|con|met|med"
_ELSE = (
    r"fs|fat\w*|fett\w*|graisse|grasa|spair|spir|moco|motion|mt|mtc|ir|stir|flow|dist\w*|nd|norm\w*|filter\w*|pat\w*"
)
_SAYS_WITHOUT = re.compile(
    rf"\b(?:(?:{_WITHOUT})\s+{_FILLER}(?:{_AGENT}|con)|(?:{_ALONE_WITHOUT})(?!\s+(?:{_ELSE})\b)|"
    r"non?\s?(?:contras\w*|cont|con|ce|enh\w*|gad\w*|gd|inj\w*)|unenh\w*|nc|nce|nogad\w*|nogd|noc|"
    r"pre(?:con\w*|c|gad\w*|gd|ce|inj\w*|km|kontras\w*)?|nat|nati+v\w*|natyw\w*|basale|simple|blanco|plain|sciv|smdc|"
    r"(?:kontrast|gadolinyum)siz\w*|nekontrast\w*|bezkontrast\w*|нативн\w*|бесконтраст\w*|безконтраст\w*|"
    rf"(?:{_AGENT})\s+(?:nelkul|oncesi|none|free|negativ\w*))\b"
)
_SAYS_WITH = re.compile(
    rf"\b(?:(?:{_WITH})\s+{_FILLER}(?:{_AGENT})|(?:{_ALONE_WITH})\s*$|(?!c\b|k\b|cm\b|iv\b)(?:{_AGENT})|"
    r"(?:t1|t1w|mprage)\s+(?:c(?!\s?spine)|k|cm|iv)|iv\s*$|post(?:con\w*|c|gad\w*|gd|ce|inj\w*|km|kontras\w*)?|apres|"
    r"enhanced|enh|enhancement|cmdc|cciv|poscontras\w*|kontrastli|delay\w*)\b"
)
_SAYS_BOTH = re.compile(
    rf"\b(?:bothc|wwo|w\s?wo|(?:{_ALONE_WITH}|w)\s(?:(?:and|und|et|y|e|en|or|oder|ou|o)\s)?(?:{_ALONE_WITHOUT}|sin)|"
    rf"(?!with?o(?:ut)?\scon\b|wo\scon\b)(?:{_ALONE_WITHOUT}|sin)\s(?:(?:and|und|et|y|e|en|or|oder|ou|o)\s)?(?:{_ALONE_WITH}|w))\b"
)
# scripts without blanks between words
_SIGNS_WITHOUT = re.compile(
    "平扫|平掃|[未无無非不]增[强強]|增[强強]前|造影前|非造影|造影(?:なし|無)|単純|단순|單純|조영\\s?전|비\\s?조영|조영제?\\s?없이|"
    "بدون\\s?\\w*|قبل\\s?\\w*"
)
_SIGNS_WITH = re.compile("增[强強]|造影|조영|증강|بعد|مع|تزریق|صبغة")
# "post" of an operation, a therapy or an illness, or of a visit in the names of BIDS
_EVENT = (
    r"op|operat\w*|surg\w*|[ck]rani[eo]\w*|biops\w*|resect\w*|debulk\w*|ablat\w*|emboli[sz]\w*|lp|proc\w*|"
    r"(?:x|s|fs|wb|c|cc)?rt|rtx|radio\w*|radia(?!l\b)\w*|irrad\w*|srs|gk\w*|gamma(?:\s?knife)?|cyber\s?knife|"
    r"(?:rad)?chemo\w*|tmz|temozol\w*|avastin|bevaciz\w*|immunoth\w*|therap\w*|treat\w*|tx|"
    r"stroke|traum\w*|ictal|contour\w*|process\w*"
)
_TIME = re.compile(rf"\b(?:pre|post)\s?(?:{_EVENT})\b|\b(?:ses|sub|run|visit|tp)\s(?!t[12])\w+")
_GLUED_WITH = re.compile(rf"(?:w|wi)?(?:pc|cplus|post\w*|{_AGENT})")
_GLUED_WITHOUT = re.compile(r"(?:w|wi)?(?:n|nc|nat\w*|pre\w*|wo|woc|nogd|nogad)")
_BEFORE_WITH = r"c|ce|gd|gad|gado|km|post"
# what is written on to "t1", as in "ct1" and "t1ce", is "before" and "after"
T1 = re.compile(
    rf"\b(?P<before>{_BEFORE_WITH}|pre|nc)?(?:3d|2d|ax\w*|tra\w*|sag\w*|cor\w*|obl\w*|s|n)?t1(?![0-9])(?P<after>\w*)"
)


def normalise(text: str) -> str:
    """Lower case, without accents, words parted by blanks, and signs about agent as words.

    "+C" becomes "plusc", "C-" and "w/o" "without", "+/- C" "bothc"; "T2*" becomes "t2star".
    """
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    text = unicodedata.normalize("NFKC", text).lower().replace("±", "+/-")
    text = text.translate(str.maketrans("ıłøđς−–—‐‑", "ilodσ-----"))
    text = re.sub(r"\b(?:[a-z]\.){1,3}[a-z]\b\.?", lambda m: m[0].replace(".", ""), text)  # "m.d.c."
    text = re.sub(r"t2\s?\*", "t2star ", text)
    agent = rf"(?:{_AGENT})"
    start, end = r"(?:^|(?<=[\s_(\[,;:/]))", r"(?=$|[\s_)\],;:/+])"
    glued = r"(?:(?<=t1)|(?<=t1w)|(?<![^\W_]))"  # "T1C-" as "T1 C-"
    sign = r"(?:\(\s*{0}\s*\)|{0})".format
    both = sign(r"(?:\+\s*/?\s*-|-\s*/\s*\+)")
    text = re.sub(rf"(?:{glued}{agent}\s?)?{both}\s?(?:{agent}\b)?", " bothc ", text)
    text = re.sub(r"\bc\s?/\s?s\b(?!\s?/)", " bothc ", text)
    text = re.sub(r"\bw\s?/\s?o\b|\bw-o\b|\bs/(?=\s?(?:c|gd|km|iv)\w*\b)", " without ", text)
    text = re.sub(r"\b[wc]/", " with ", text)
    text = re.sub(rf"(?:{glued}{agent}\s?)?\(\s*-\s*\)\s?(?:{agent}\b)?", " without c ", text)
    text = re.sub(rf"{start}-{agent}{end}|(?<=\()-\s?{agent}{end}", " without c ", text)
    text = re.sub(rf"{glued}{agent}-{end}|\b{agent}\s-\s*(?=$|\))", " without c ", text)
    text = re.sub(rf"\s-\s(?:c|gd|km|ce|contrast){end}|(?<=t1)-c{end}", " bothc ", text)  # a sign, or a dash?
    text = re.sub(
        rf"(?:{glued}{agent}\s?)?\(\s*\+\s*\)\s?(?:{agent}\b)?|\+\s*{agent}\b|{glued}{agent}\s?\+", " plusc ", text
    )
    text = re.sub(r"\+", " plusc ", text)
    return " ".join(re.findall(r"[^\W_]+", text))


def without_agent(words: str) -> str:
    """Normalised `words` without T1 and all that is said of agent: what is left is common to the images of a case."""
    for pattern in (T1, _SAYS_BOTH, _SAYS_WITHOUT, _SAYS_WITH, re.compile(r"\bplusc\b")):
        words = pattern.sub(" ", words)
    return " ".join(words.split())


def agent_said(text: str) -> str:
    """What a description or a name says of contrast agent.

    "with", "without", "both" (it contradicts itself, or offers either: who is to know?), or "" for nothing.
    """
    words = normalise(text)
    if _SAYS_BOTH.search(words):
        return "both"
    words = _TIME.sub(" ", words)
    t1 = T1.search(words)
    before, after = (t1["before"] or "", t1["after"]) if t1 else ("", "")
    without = bool(_SAYS_WITHOUT.search(words) or _GLUED_WITHOUT.fullmatch(after) or before in ("pre", "nc"))
    rest = _SAYS_WITHOUT.sub(" ", words)
    given = bool("plusc" in rest.split() or _SAYS_WITH.search(rest) or _GLUED_WITH.fullmatch(after))
    given |= bool(re.fullmatch(_BEFORE_WITH, before))
    without |= bool(_SIGNS_WITHOUT.search(text))
    given |= bool(_SIGNS_WITH.search(_SIGNS_WITHOUT.sub(" ", text)))
    return "both" if given and without else "with" if given else "without" if without else ""
