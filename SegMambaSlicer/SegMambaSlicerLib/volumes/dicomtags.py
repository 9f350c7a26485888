"""What the DICOM attributes of a volume's series say about its modality."""

from __future__ import annotations

import slicer

from ..i18n import _

TAGS = {
    "Modality": "0008,0060",
    "ImageType": "0008,0008",
    "SeriesDescription": "0008,103e",
    "PatientID": "0010,0020",
    "StudyInstanceUID": "0020,000d",
    "StudyDate": "0008,0020",
    "AcquisitionDate": "0008,0022",
    "ContrastBolusAgent": "0018,0010",
    "ScanningSequence": "0018,0020",
    "RepetitionTime": "0018,0080",
    "EchoTime": "0018,0081",
    "InversionTime": "0018,0082",
}
# third and later values of ImageType for what is computed from images, or is no picture of tissue alone
_COMPUTED = {
    "ADC", "CBF", "CBV", "DIFFUSION", "FA", "MINIP", "MIP", "MNIP", "MTT", "P", "PERFUSION", "PHASE",
    "PROJECTION IMAGE", "RCBV", "SUB", "SUBTRACTION", "SWI", "TRACE", "TRACEW", "TTP",
}  # fmt: skip
_NO_AGENT = {"", "no", "none", "n/a", "na", "0", "without", "nein", "ohne", "keine", "non", "aucun"}


def dicomTags(node) -> dict[str, str]:
    """Values of TAGS for the first image of the volume's series, as text; {} for a volume that is not from DICOM.

    Slicer keeps the UIDs of a volume's images in the attribute DICOM.instanceUIDs, and the files in its database.
    """
    database = getattr(slicer, "dicomDatabase", None)
    uids = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    if database is None or not uids:
        return {}
    values = {name: database.instanceValue(uids[0], tag) for name, tag in TAGS.items()}
    return {name: str(value).strip() for name, value in values.items() if value}


def judgeTags(tags: dict[str, str]) -> tuple[dict[str, float], list[str]]:
    """Scores (log odds, roughly) for the modalities, and the reasons in words; ({}, []) where nothing is known.

    Spin and gradient echoes with a short echo time and a short repetition time (or an inversion of up to 1.3 s, as
    in MPRAGE) are T1-weighted; a long echo time makes T2, and with an inversion of 1.5 s or more FLAIR.
    """
    if tags.get("Modality", "MR") != "MR":
        return dict.fromkeys(("t1n", "t1c", "t2w", "t2f"), -8.0), [
            _("a {modality} image").format(modality=tags["Modality"])
        ]
    kinds = _COMPUTED.intersection(part.strip().upper() for part in tags.get("ImageType", "").split("\\")[2:])
    if kinds:
        text = _("DICOM calls it a computed image ({kind})")
        return dict.fromkeys(("t1n", "t1c", "t2w", "t2f"), -8.0), [text.format(kind=", ".join(sorted(kinds)))]
    scores, reasons = dict.fromkeys(("t1n", "t1c", "t2w", "t2f"), 0.0), []
    echo, repetition, inversion = (_number(tags, f"{name}Time") for name in ("Echo", "Repetition", "Inversion"))
    if echo and repetition:
        times = _("TE {echo:g}, TR {repetition:g}, TI {inversion:g} ms").format(
            echo=echo, repetition=repetition, inversion=inversion
        )
        if echo >= 60 and inversion >= 1500:
            _add(scores, t2f=3, t2w=-2, t1n=-4, t1c=-4)
        elif echo >= 60 and repetition > 1800:
            _add(scores, t2w=3, t2f=-1, t1n=-4, t1c=-4)
        elif echo < 35 and (repetition < 1200 or 300 < inversion < 1300):
            _add(scores, t1n=2, t1c=2, t2w=-4, t2f=-4)
        if any(scores.values()):
            reasons.append(times)
    if tags.get("ContrastBolusAgent", "").lower() not in _NO_AGENT:
        _add(scores, t1c=2, t1n=-2)
        reasons.append(_("contrast agent noted in DICOM"))
    if "EP" in tags.get("ScanningSequence", "").upper():  # diffusion, perfusion
        _add(scores, t1n=-2, t1c=-2, t2w=-2, t2f=-2)
    return scores, reasons


def _add(scores: dict[str, float], **more: float) -> None:
    for modality, value in more.items():
        scores[modality] += value


def _number(tags: dict[str, str], name: str) -> float:
    try:
        return float(tags.get(name, "").split("\\")[0])
    except ValueError:
        return 0.0
