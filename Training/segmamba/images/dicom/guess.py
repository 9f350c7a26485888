"""Which of the four a series is, and which series are none of them: from attributes, then from its description.

Scores are log odds, roughly, against "none of the four"; the confidence is their share. The limits on times are
those of textbooks at 1.5 and 3 T: T1 short echo and short repetition (or an inversion about 1 s), T2 long both,
FLAIR a T2 with an inversion that nulls fluid (1.5 s and more).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from segmamba.images.dicom.geometry import Geometry
from segmamba.images.dicom.headers import Frame
from segmamba.images.dicom.words import other_kind, weighting
from segmamba.images.modalities import MODALITIES
from segmamba.shared.contrast_words import agent_said

LEAST_CONFIDENCE = 0.5
_LEAST_SLICES = 8
_LEAST_EXTENT_MM = 60.0
_LARGEST_STEP_MM = 12.0
_PLANE_WORDS = {"MPR", "REFORMATTED", "RESAMPLED", "CSA MPR", "MPR THICK", "CSAPARALLEL", "RESAMPLED_DEFAULT"}
# of ImageType and FrameType: what was computed from images, or is another quantity than brightness
_KINDS = {
    "localizer": {"LOCALIZER", "SCOUT"},
    "diffusion": {"DIFFUSION", "TRACEW", "TRACE", "ADC", "EADC", "FA", "TENSOR", "DIFFUSION_ANISO", "CALC_BVALUE"},
    "perfusion": {"PERFUSION", "CBF", "CBV", "RCBV", "RELCBF", "RELCBV", "MTT", "RELMTT", "TTP", "TMAX", "ASL"},
    "functional": {"MOSAIC", "FMRI", "T_MAP", "TTEST"},
    "a projection": {"MIP", "MINIP", "MNIP", "MIN IP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE", "CSA MIP", "VOLUME REN"},
    "a subtraction": {"SUBTRACT", "SUBTRACTION", "SUB", "SUBTRACTED"},
    "susceptibility": {"SWI", "SWAN", "QSM", "VENOGRAM"},
    "phase, not magnitude": {"P", "PHASE", "PHASE MAP", "I", "IMAGINARY", "FIELD_MAP"},
    "a map or a mask": {
        "T1 MAP",
        "T2 MAP",
        "T2_STAR MAP",
        "R2_MAP",
        "R2_STAR MAP",
        "B0 MAP",
        "B1 MAP",
        "MAP",
        "T1_MAP",
    },
    "fat or water of a Dixon series": {"FAT", "F", "OPP_PHASE", "IN_PHASE", "OUT_PHASE", "FAT_FRACTION"},
    "a picture of the screen": {"SCREEN SAVE", "SCREENSHOT", "REPORT", "SECONDARY CAPTURE"},
}


@dataclass(frozen=True)
class Guess:
    """Which modality a series is likely to be."""

    modality: str | None
    """t1n, t1c, t2w, t2f, or None."""
    confidence: float
    """0 to 1."""
    reason: str
    """What speaks for it, in plain words."""
    scores: dict[str, float]
    """Modality -> how much speaks for it."""


def judge(frame: Frame) -> tuple[dict[str, float], list[str]]:
    """Scores by modality from one slice of the series, and the reasons."""
    scores: dict[str, float] = {modality: 0.0 for modality in MODALITIES}
    reasons = []
    for evidence in (_from_times, _from_contrast, _from_description, _from_agent):
        more, reason = evidence(frame)
        for modality, value in more.items():
            scores[modality] += value
        if reason:
            reasons.append(reason)
    return scores, reasons


def conclude(scores: dict[str, float], reasons: Sequence[str]) -> Guess:
    """The modality with the best score, how sure that is, and why."""
    best = max(MODALITIES, key=lambda m: scores[m])
    if scores[best] <= 0:
        return Guess(None, 0.0, "; ".join(reasons) or "nothing tells what it is", scores)
    total = 1 + sum(math.exp(scores[m]) for m in MODALITIES)
    return Guess(best, math.exp(scores[best]) / total, "; ".join(reasons), scores)


def why_left_out(frame: Frame, geometry: Geometry, volumes: int) -> str:
    """Why no case is made of a series unless a user asks for it by name.

    Args:
        frame: one slice, as those of a series agree in what is looked at.
        geometry: where the slices lie.
        volumes: how many stand at one place.

    Returns:
        In plain words, such as "diffusion"; '' where nothing speaks against it.
    """
    header = frame.header
    if header.modality != "MR":
        return f"a {header.modality or 'nameless'} image, no MR"
    tokens = {token.upper() for token in frame.image_type}
    kind = next((kind for kind, words in _KINDS.items() if tokens & words), "")
    if not kind and frame.b_value and frame.b_value > 0:
        kind = "diffusion"
    if not kind and header.contrast in ("DIFFUSION", "PERFUSION"):
        kind = header.contrast.lower()
    if not kind and header.angiography:
        kind = "an angiography"
    kind = kind or other_kind(header.description)
    if not kind and "EP" in header.sequence:
        kind = "echo planar (diffusion, perfusion or functional)"
    if kind:
        return kind
    if volumes > 1:
        return f"{volumes} volumes over time at one place (perfusion or another dynamic series)"
    x, y, z = geometry.shape
    if z < _LEAST_SLICES:
        return f"{z} slice{'s' * (z != 1)} only: a localizer, or part of a series"
    if geometry.spacing is not None:
        if geometry.spacing[2] > _LARGEST_STEP_MM:
            return f"slices {geometry.spacing[2]:.3g} mm apart: a localizer"
        least = min(geometry.extent_mm, x * geometry.spacing[0], y * geometry.spacing[1])
        if least < _LEAST_EXTENT_MM:
            return f"covers {least:.0f} mm only, not a head"
    return ""


def is_reformat(frame: Frame) -> bool:
    """Whether it was computed from another series' slices."""
    return frame.image_type[:1] == ("DERIVED",) and bool({t.upper() for t in frame.image_type} & _PLANE_WORDS)


def _from_times(frame: Frame) -> tuple[dict[str, float], str]:
    echo, repetition = frame.echo_time, frame.repetition_time
    inversion = frame.inversion_time or 0.0
    if not echo or not repetition:
        return {}, ""
    times = f"TE {echo:.4g}, TR {repetition:.4g}" + (f", TI {inversion:.4g}" if inversion else "") + " ms"
    sequence = frame.header.sequence
    if 80 <= inversion <= 300:
        return dict.fromkeys(MODALITIES, -3.0), f"{times} of STIR"
    if echo >= 60 and (inversion >= 1400 or (not inversion and "IR" in sequence and repetition >= 4000)):
        return {"t2f": 3.0, "t2w": -2.0, "t1n": -5.0, "t1c": -5.0}, f"{times} of FLAIR"
    if echo >= 60 and repetition > 1500:
        return {"t2w": 3.0, "t2f": -1.0, "t1n": -5.0, "t1c": -5.0}, f"{times} of T2"
    if sequence == ("GR",) and echo >= 12:
        return dict.fromkeys(MODALITIES, -3.0), f"{times} of T2*"
    if echo < 40 and (repetition < 1200 or 300 < inversion < 1400):
        return {"t1n": 2.0, "t1c": 2.0, "t2w": -5.0, "t2f": -5.0}, f"{times} of T1"
    if echo < 40 and repetition > 1500 and not inversion and "SE" in sequence:
        return dict.fromkeys(MODALITIES, -3.0), f"{times} of proton density"
    return {}, ""


def _from_contrast(frame: Frame) -> tuple[dict[str, float], str]:
    """The weighting that an enhanced multi-frame file states."""
    stated = frame.header.contrast
    if stated == "T1":
        return {"t1n": 2.0, "t1c": 2.0, "t2w": -3.0, "t2f": -3.0}, "stated to be T1"
    if stated == "T2":  # of FLAIR some makers say T2 too
        return {"t2w": 2.0, "t2f": 0.0, "t1n": -3.0, "t1c": -3.0}, "stated to be T2"
    if stated == "FLUID_ATTENUATED":
        return {"t2f": 3.0, "t2w": -2.0, "t1n": -3.0, "t1c": -3.0}, "stated to be fluid-attenuated"
    if stated in ("T2_STAR", "PROTON_DENSITY", "STIR", "FLOW_ENCODED", "TAGGING", "TOF", "BRAVO"):
        return dict.fromkeys(MODALITIES, -3.0), f"stated to be {stated.replace('_', ' ').lower()}"
    return {}, ""


def _from_description(frame: Frame) -> tuple[dict[str, float], str]:
    found = weighting(frame.header.description) or weighting(frame.header.sequence_name)
    if found == "flair":
        return {"t2f": 4.0, "t2w": -2.0, "t1n": -5.0, "t1c": -5.0}, "named FLAIR"
    if found == "t2":
        return {"t2w": 3.0, "t2f": -1.0, "t1n": -5.0, "t1c": -5.0}, "named T2"
    if found == "t1":
        return {"t1n": 2.5, "t1c": 2.5, "t2w": -5.0, "t2f": -5.0}, "named T1"
    return {}, ""


def _from_agent(frame: Frame) -> tuple[dict[str, float], str]:
    """With or without agent tells the two T1 apart; T2 and FLAIR may be taken after it too.

    A description that says both leaves the two alike, so that neither is sure enough to be taken. One that the header
    denies is believed, since headers keep what was entered for the whole examination, but not much.
    """
    said, noted = agent_said(frame.header.description), frame.header.agent
    in_header = {True: "contrast agent noted in the header", False: "the header says no contrast agent", None: ""}[
        noted
    ]
    if said == "both":
        return {"t1n": 0.0, "t1c": 0.0}, "the description says with and without contrast agent"
    if not said:
        lean = {True: -2.0, False: 1.5, None: 0.5}[noted]
        return {"t1n": lean, "t1c": -lean}, in_header
    given = said == "with"
    described = f"described as {said} contrast agent"
    if noted is not None and noted != given:
        more = {"t1n": -0.5, "t1c": 0.5} if given else {"t1n": 0.5, "t1c": -0.5}
        return more, f"{described}, but {in_header}"
    scores = {"t1n": -4.0, "t1c": 3.0} if given else {"t1n": 3.0, "t1c": -4.0}
    if noted:
        scores = {"t1n": scores["t1n"] - 2, "t1c": scores["t1c"] + 2}
    return scores, "; ".join(filter(None, (described, in_header)))
