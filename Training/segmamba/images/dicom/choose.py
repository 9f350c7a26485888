"""The series of a case among all that were found, or in plain words why they cannot be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from segmamba.errors import InputError
from segmamba.images.dicom.find import Series
from segmamba.images.dicom.guess import LEAST_CONFIDENCE
from segmamba.images.dicom.words import is_unsure
from segmamba.images.modalities import MODALITIES

_NAMES = {"t1n": "T1 without contrast agent", "t1c": "T1 with contrast agent", "t2w": "T2", "t2f": "FLAIR"}
_FINER = 0.8  # the largest edge of a voxel, against another series', that makes it the better one
_NAMED = "named by the user"
_DOUBTED = 0.5  # the confidence in a series at the most where the intensities speak against it
_SURER = 2.0  # in log odds


class _Ambiguous(InputError):
    """There is a series for every modality, and for some more than one."""


@dataclass(frozen=True)
class Choice:
    """The series that was taken for a modality, and why."""

    series: Series
    """What was taken for a modality."""
    confidence: float
    """0 to 1; 1 where a user named it."""
    reason: str
    """Plain words."""


def choose_four(
    series: Sequence[Series],
    named: Mapping[str, str] | None = None,
    modalities: Sequence[str] = MODALITIES,
    *,
    incomplete: bool = False,
) -> dict[str, Choice]:
    """One series for each of `modalities`, all of one study.

    Of several that fit, the finer is taken, then an original before a reformat.

    Args:
        series: what was found.
        named: modality -> name of a series (see Series), which is taken whatever it looks like.
        modalities: that are wanted.
        incomplete: whether, where no study has all, a modality is left out for which the only study with two or more
            has nothing that could be it, be it under a word of another use; or for which a user named all the others.

    Returns:
        Modality -> its series, and why.

    Raises:
        InputError: says what is missing, or which series are equally good, and how to name one.
    """
    wanted = _find_named(series, dict(named or {}), modalities)
    studies = sorted({s.study for s in (wanted.values() if wanted else series)})
    if len(studies) > 1 and wanted:
        raise InputError(f"the named series belong to {len(studies)} studies ({', '.join(studies)}); name those of one")
    chosen, errors = {}, {}
    for study in studies:
        own = [s for s in series if s.study == study]
        try:
            chosen[study] = _choose(own, wanted, modalities)
        except InputError as error:
            errors[study] = error
    complete = [*chosen, *(study for study, error in errors.items() if isinstance(error, _Ambiguous))]
    if len(complete) == 1 and chosen:
        return next(iter(chosen.values()))
    if len(complete) > 1:
        example = next(f"{s.guess.modality}={s.name}" for s in series if s.study in complete and s.guess.modality)
        raise InputError(
            f"{len(complete)} studies ({', '.join(sorted(complete))}) have every series; give the folder of one, "
            f"or say which by naming one series of it, e.g. --series {example}"
        )
    if len(complete) == 1:
        raise errors[complete[0]]
    if incomplete and (partial := _choose_incomplete(series, studies, wanted, modalities)):
        return partial
    texts = [f"study {study}: {error}" if len(errors) > 1 else str(error) for study, error in errors.items()]
    hint = "`segmamba dicom FOLDER` lists all, --series MODALITY=NUMBER takes one"
    raise InputError("; ".join([*texts, hint]))


def doubt(choices: Mapping[str, Choice], odd: Sequence[str]) -> dict[str, Choice]:
    """Choices that intensities contradict are not sure any more, but for those that a user named.

    `odd`: the sentences in which the intensities say otherwise than the headers of `choices`.
    """
    return {
        m: c
        if c.reason == _NAMED
        else replace(c, confidence=min(c.confidence, _DOUBTED), reason=" ".join((c.reason + ";", *odd)))
        for m, c in choices.items()
    }


def _choose_incomplete(
    series: Sequence[Series], studies: Sequence[str], named: dict[str, Series], modalities: Sequence[str]
) -> dict[str, Choice]:
    """{} where it cannot be told."""
    found = []
    for study in studies:
        own = [s for s in series if s.study == study]
        free = [s for s in own if not s.left_out and s not in named.values()]
        guessed = {s.guess.modality for s in free}
        there = [m for m in modalities if m in guessed or m in named]
        if len(there) < 2:
            continue
        try:
            choices = _choose(own, named, there)
        except InputError:
            return {}
        taken = [choice.series for choice in choices.values()]
        absent = [m for m in modalities if m not in there]
        if any(s.guess.scores[m] >= 0 for s in free if s not in taken for m in absent):
            return {}  # nothing speaks against its being what is missing
        if not set(there) <= set(named) and any(_could_be(m, s) for s in own if s not in taken for m in absent):
            return {}  # left out for a word that may mean something else
        found.append(choices)
    return found[0] if len(found) == 1 else {}


def _find_named(series: Sequence[Series], named: dict[str, str], modalities: Sequence[str]) -> dict[str, Series]:
    names = {s.name: s for s in series}
    found = {}
    for modality, name in named.items():
        if modality not in modalities:
            raise InputError(f"--series {modality}={name}: expected one of {', '.join(modalities)} before the =")
        if name not in names:
            raise InputError(f"--series {modality}={name}: no such series; there are {', '.join(names) or 'none'}")
        if names[name].geometry.fault:
            raise InputError(f"series {name} cannot be used for {modality}: {names[name].geometry.fault}")
        if names[name] in found.values():
            raise InputError(f"series {name} was named twice; give each modality its own")
        found[modality] = names[name]
    return found


def _choose(series: Sequence[Series], named: dict[str, Series], modalities: Sequence[str]) -> dict[str, Choice]:
    choices = {}
    missing = []
    unclear = []
    for modality in modalities:
        if modality in named:
            choices[modality] = Choice(named[modality], 1.0, _NAMED)
            continue
        fitting = [s for s in series if s.guess.modality == modality and not s.left_out and s not in named.values()]
        sound = [s for s in fitting if not s.geometry.fault and s.guess.confidence >= LEAST_CONFIDENCE]
        if not sound:
            missing.append((modality, [*fitting, *(s for s in series if _could_be(modality, s))]))
            continue
        best, rivals, reason = _best(modality, sound)
        if rivals:
            listing = ", ".join(_line(s) for s in [best, *rivals])
            unclear.append(
                f"{1 + len(rivals)} candidates for {modality}: {listing}; "
                f"say --series {modality}={best.name}, or another"
            )
            continue
        choices[modality] = Choice(best, best.guess.confidence, "; ".join(r for r in (best.guess.reason, reason) if r))
    if missing:
        raise InputError("; ".join([_missing(missing), *unclear]))
    if unclear:
        raise _Ambiguous("; ".join(unclear))
    return choices


def _best(modality: str, sound: Sequence[Series]) -> tuple[Series, list[Series], str]:
    """The series to take, those that are as good, and why it was taken before others."""
    top = max(s.guess.scores[modality] for s in sound)
    sure = [s for s in sound if s.guess.scores[modality] >= top - _SURER]
    finest = min(_edge(s) for s in sure)
    fine = [s for s in sure if _edge(s) * _FINER <= finest]
    originals = [s for s in fine if not s.reformatted] or fine
    originals = _normalised(originals)
    best = min(originals, key=lambda s: (_edge(s), s.name))
    reason = ""
    others = [s for s in sound if s not in originals]
    if others:
        reason = f"taken before series {', '.join(s.name for s in others)}, which " + (
            "is" if len(others) == 1 else "are"
        )
        reason += " coarser, reformatted or less sure"
    return best, [s for s in originals if s is not best], reason


def _normalised(series: list[Series]) -> list[Series]:
    """Of one acquisition stored with and without correction of the coil's shading or of distortion, the corrected."""
    if len({s.time for s in series}) != 1 or series[0].time is None:
        return series
    corrected = [len({"NORM", "DIS2D", "DIS3D"} & set(s.frames[0].image_type)) for s in series]
    return [s for s, count in zip(series, corrected) if count == max(corrected)]


def _edge(series: Series) -> float:
    """Largest edge of a voxel in mm."""
    assert series.geometry.spacing is not None  # of a series that fits
    return max(series.geometry.spacing)


def _missing(missing: Sequence[tuple[str, Sequence[Series]]]) -> str:
    text = "no series for " + ", ".join(f"{modality} ({_NAMES.get(modality, modality)})" for modality, _near in missing)
    for modality, near in missing:
        for series in near[:3]:
            why = series.geometry.fault or f"a guess of {series.guess.confidence:.2f} only ({series.guess.reason})"
            if series.left_out:
                why = f"{series.description!r} was taken for {series.left_out}"
            text += f"; series {series.name} could be {modality}, but: {why}"
    return text


def _could_be(modality: str, series: Series) -> bool:
    """Whether a series was left out for a word in its description alone, and looks like `modality` otherwise."""
    return bool(
        series.left_out and is_unsure(series.description) and series.covers_head and series.guess.scores[modality] > 0
    )


def _line(series: Series) -> str:
    assert series.geometry.spacing is not None  # of a series that fits
    step = series.geometry.spacing[2]
    return f"{series.name} ({series.description!r}, {series.geometry.shape[2]} slices every {step:.3g} mm)"
