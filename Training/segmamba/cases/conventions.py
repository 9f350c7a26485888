"""What truths and predictions mean by their values: the convention of each, and the labels in which both are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from segmamba.cases.label_files import Found, named_as_brats2023
from segmamba.cases.labels import CONVENTIONS, GLIOMA, SCHEMES, LabelScheme, cohort_of, find_convention, values_of
from segmamba.errors import InputError

PREDICTION_LABELS = "--prediction-labels"  # the option that says what predictions follow


def find_conventions(where: Path, truths: dict[str, Found], otherwise: str | None, notes: list[str]) -> dict[str, str]:
    """The convention of each truth; each cohort is judged as a whole.

    Args:
        where: the folder of the truths, for errors.
        truths: case -> what its file of labels holds.
        otherwise: the convention of labels 1 to 3 where nothing tells it; None: that is an error.
        notes: what a reader should know is appended.

    Returns:
        Case -> name of a convention (labels.CONVENTIONS, labels.SCHEMES).

    Raises:
        InputError: where a convention cannot be told, with how to state it.
    """
    cohorts: dict[str, dict[str, Found]] = {}
    for case, found in truths.items():
        cohort = cohort_of(case) or cohort_of(found.file.name)
        cohorts.setdefault(cohort, {})[case] = found
    result: dict[str, str] = {}
    for cohort, own in cohorts.items():
        result |= dict.fromkeys(own, _find_convention(where, cohort, own, otherwise, notes))
    return result


def _find_convention(
    where: Path, cohort: str, truths: dict[str, Found], otherwise: str | None, notes: list[str]
) -> str:
    first: dict[int, Path] = {}  # value -> the first file that holds it
    for found in truths.values():
        for value in found.values:
            first.setdefault(value, found.file)
    name = next((n for case, f in truths.items() for n in (case, f.file.name) if cohort and cohort_of(n)), "")
    try:
        convention = find_convention(first, name)
        if cohort and first:
            notes.append(
                f"the labels of {cohort} are taken for those of {_title(convention)}, as their files are so named"
            )
        return convention
    except InputError as error:
        if set(first) <= {1, 2, 3}:
            if not cohort and named_as_brats2023({case: found.file for case, found in truths.items()}):
                notes.append("the labels of the truths are taken for those of BraTS 2023, as their files are so named")
                return "brats2023"
            if otherwise is not None:
                return otherwise
        seen = ", ".join(f"{value} in {first[value].name}" for value in sorted(first)[:8])
        raise InputError(
            f"{where}: {error}, with --labels {'|'.join(CONVENTIONS)}; first seen: {seen}. If the folder mixes "
            "conventions: --labels TABLE.csv, a line CASE,CONVENTION for each"
        ) from error


def _title(convention: str) -> str:
    return convention.replace("brats20", "BraTS 20").replace("brats-", "BraTS-").replace("msd", "MSD")


def in_common(
    told: Mapping[str, str],
    predicted: str | None,
    predictions: Sequence[Found],
    notes: list[str],
    *,
    beside: str | None = None,
    option: str = PREDICTION_LABELS,
) -> tuple[LabelScheme, dict[int, int], dict[str, dict[int, int]]]:
    """The labels in which predictions and truths of different conventions can be compared.

    Args:
        told: case -> convention of its truth.
        predicted: convention of the predictions; None: it is found from their values and those of the truths.
        predictions: what their files hold.
        notes: what a reader should know is appended.
        beside: convention of other predictions, which are to be scored in the same labels.
        option: that says `predicted`, for errors.

    Returns:
        The scheme that is scored; value in a prediction -> label in it; and by convention value in a truth -> label in
        it.

    Raises:
        InputError: where the convention does not follow from what the predictions hold.
    """
    kinds = set(told.values())
    if predicted is None:
        predicted = _predicted(kinds, predictions, option)
        if predicted == "brats2021":
            notes.append("the predictions hold a 4: taken for the labels of BraTS 2021, as the truths have them")
    known = {*kinds, predicted, beside or predicted}
    if len(known) == 1 and predicted in SCHEMES:
        scheme = SCHEMES[predicted]
        same = {value: value for value in scheme.labels.values()}
        return scheme, same, dict.fromkeys(kinds, same)
    left = sorted(f"{_title(c)}" for c in known if c in SCHEMES)
    if left:
        notes.append(
            f"only WT, TC and ET are scored: the labels that {', '.join(left)} has besides are not those of "
            f"{'the predictions' if predicted not in SCHEMES else 'the others'}"
        )
    # what is no part of any of the three, as a cavity, is background in all of them
    in_glioma = {c: {**dict.fromkeys(values_of(c), 0), **CONVENTIONS[c]} for c in {*kinds, predicted}}
    return GLIOMA, in_glioma[predicted], in_glioma


def _predicted(kinds: set[str], predictions: Sequence[Found], option: str) -> str:
    with_a_4 = next((found.file for found in predictions if 4 in found.values), None)
    if with_a_4:
        with_4 = {convention for convention in kinds if 4 in values_of(convention)}
        if len(kinds) == len(with_4) == 1:
            return with_4.pop()
        raise InputError(
            f"{with_a_4} holds label 4, which is ET in brats2021, a cavity in brats2024 and oedema in brats-ped; say "
            f"which, with {option}"
        )
    if "brats-ped" in kinds:
        raise InputError(
            "the truths follow brats-ped, whose 1, 2 and 3 are not those of other conventions; say what the "
            f"predictions follow, with {option} (brats2023 for a model of this program)"
        )
    return "brats2023"
