"""What a report on a follow-up says, section by section, whether on a page or on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from segmamba import __version__
from segmamba.followup.burden import Burden
from segmamba.followup.by_hand import Clinician
from segmamba.followup.criteria import PRELIMINARY, SETS
from segmamba.followup.draw import draw_chart, draw_dates
from segmamba.followup.follow import Date, FollowUp, Settings
from segmamba.followup.lesions import MIXED

TITLE = "Follow-up report"
NOT_A_DEVICE = "Research use only, not a medical device. Categories are suggestions from measurements alone."
_METHOD = (
    "Lesions: what hangs together over faces, edges or corners, of 3 voxels or more; pieces less than 2 mm apart "
    "are one.",
    "D1: the longest line in an axial slice of the images' own grid, from the middle of one voxel at the border to the "
    "middle of another, that does not leave the lesion; cavities and necrosis are outside of it. D2: the longest such "
    "line in that slice that crosses D1 at a right angle, give or take 2 degrees or, where voxels are too coarse for "
    "that, half a voxel at its end; a note says so.",
    "Measurable: D1 and D2 of 10 mm or more (twice the slice thickness above 5 mm), on 2 slices or more.",
    "Targets: the largest measurable lesions at baseline. At later dates a lesion belongs to the one that it lies on "
    "or within 5 mm of, after rigid registration of the T1c images; one to which none belongs has merged into another "
    "that lies on a quarter of it or more, and is gone otherwise. Label maps are measured where they were made.",
    "Other borders: one voxel less or more in the slices; where probabilities are at hand, 0.3 and 0.7 instead of "
    "0.5; the same at all dates. Near a threshold: where one of these gives another category.",
)
# rules that could not be checked in the criteria's own text: each is a setting, or says what was taken
REMARKS = (
    "Not confirmed in the text of RANO 2.0: up to 3 targets, of a mixed tumor 2 enhancing and 2 non-enhancing ones "
    "(setting --targets).",
    "Not confirmed in the text of RANO 2.0: until 12 weeks after radiotherapy progression needs a confirming scan "
    "(settings --radiotherapy-end, --confirm-weeks).",
    "Not confirmed in the text of RANO 2.0: a minor response in volume from 40 % (setting --volumetric-minor); MR is "
    "used for the non-enhancing region only.",
    "The first date is taken for the baseline. RANO recommends the scan after radiotherapy for newly diagnosed tumours "
    "and the one before treatment for recurrent ones: give that one first.",
    "A lesion is new where the baseline has none within 5 mm. That CR and PR last 4 weeks is not looked at.",
)
REMARK_MIXED = (
    "Mixed tumor: enhancing and non-enhancing lesions are judged each for themselves. Overall, PD of either is PD; PR "
    "or MR with SD is PR or MR; CR with SD, PR or MR is SD, PR or MR; so others quote RANO 2.0. PR with MR is not in "
    "what they quote, and PR is taken."
)
REMARK_NON_ENHANCING = (
    "Non-enhancing is what the label map calls edema, or necrotic and non-enhancing core: it does not tell "
    "infiltrating tumor from edema, nor solid tumor from necrosis, as RANO 2.0 wants. Look at each lesion."
)
CLINICIAN = {
    "Steroids (less, same, more)": "steroids",
    "Clinical status (better, same, worse)": "clinical_status",
    "Lesions not measured": "non_target_lesions",
}


@dataclass(frozen=True)
class Section:
    """A section of the report: a title and any of the rest."""

    title: str
    """Its heading."""
    paragraphs: tuple[str, ...] = ()
    """Of plain text."""
    table: tuple[tuple[str, ...], ...] = ()
    """Rows of cells, the first row the head."""
    picture: bytes | None = None
    """A PNG file."""
    shows: str = ""
    """What the picture shows, in words."""


def remarks(settings: Settings) -> tuple[str, ...]:
    """What could not be confirmed, or is to be known of these settings."""
    found = (REMARK_MIXED,) if settings.region == MIXED else ()
    return (*REMARKS, *found, *((REMARK_NON_ENHANCING,) if settings.region in (MIXED, "non-enhancing") else ()))


def made_by(result: FollowUp) -> str:
    """Software and models, once each."""
    models = [" ".join(date.timepoint.made_by.values()) or "label map as given" for date in result.dates]
    return f"segmamba {__version__}; segmentations: {', '.join(dict.fromkeys(models))}"


def sections(result: FollowUp) -> list[Section]:
    """The report's sections in order, for paper and page alike."""
    return [
        Section("Suggestion", table=_suggestions(result)),
        Section(
            "Images",
            ("T1c at the level of the largest lesion, with the lesions' numbers; the patient's right is on the left.",),
            picture=draw_dates(result),
            shows="T1c of each date with the lesions' outlines and diameters",
        ),
        Section("Sums", table=_sums(result.dates)),
        Section("Over time", picture=draw_chart(result), shows="sums of products and volumes over days"),
        Section("Lesions", table=_lesions(result)),
        Section("Warnings", result.warnings or ("none",)),
        Section("Rules", table=_rules(result.dates)),
        Section("From the physician", table=(("", *_days(result.dates)), *_said(result))),
        Section("How it was measured", (*_METHOD, *remarks(result.settings))),
    ]


def _days(dates: Sequence[Date]) -> tuple[str, ...]:
    return tuple(f"day {date.day}" for date in dates)


def _said(result: FollowUp) -> tuple[tuple[str, ...], ...]:
    """What the physician has said, blanks where nothing."""
    said = [result.clinician.get(date.day, Clinician()) for date in result.dates]
    rows = [(title, *(getattr(one, name) for one in said)) for title, name in CLINICIAN.items()]
    end = result.settings.radiotherapy_end
    weeks = ["" if end is None else f"{(date.day - end) / 7:.1f}" for date in result.dates]
    return (*rows, ("Weeks since radiotherapy", *weeks))


def _suggestions(result: FollowUp) -> tuple[tuple[str, ...], ...]:
    rows = [("", *(f"{rule_set.title} criteria" for rule_set in SETS.values()))]
    for date in result.dates[1:]:
        parts = date.burdens if len(date.burdens) > 1 else ()
        rows.append((f"day {date.day}", *_categories(date)))
        rows += [(f"day {date.day}, {burden.region} alone", *_categories(burden)) for burden in parts]
    return tuple(rows)


def _categories(judged: Date | Burden) -> list[str]:
    cells = []
    for name in SETS:
        text = judged.suggestions[name].category
        text = f"measurements compatible with {text}" if len(text) <= len(PRELIMINARY) else text
        cells.append(text + (f" (near threshold: {', '.join(judged.near[name])})" if name in judged.near else ""))
    return cells


def _sums(dates: Sequence[Date]) -> tuple[tuple[str, ...], ...]:
    head = ("", "SPD, mm2", "other borders", "from baseline", "from nadir")
    head += ("volume, mL", "other borders", "from baseline", "from nadir")
    rows: list[tuple[str, ...]] = [head]
    for date in dates:
        for burden in date.burdens:
            cells = [f"day {date.day}" + (f", {burden.region}" if len(date.burdens) > 1 else "")]
            for name, form in (("bidimensional", "{:.0f}"), ("volumetric", "{:.2f}")):
                value, found = burden.value(name), burden.suggestions.get(name)
                variants = cast(list[float], [burden.value(name, one) for one in burden.spread])  # or value is None
                cells.append("not known" if value is None else form.format(value))
                cells.append("" if value is None else f"{form.format(min(variants))} to {form.format(max(variants))}")
                cells += [_share(found.from_baseline), _share(found.from_nadir)] if found else ["", ""]
            rows.append(tuple(cells))
    return tuple(rows)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1%}"


def _lesions(result: FollowUp) -> tuple[tuple[str, ...], ...]:
    rows = [("", "lesion", "region", "at baseline", "D1 x D2, mm", "product, mm2", "volume, mL", "slice", "measurable")]
    regions = {lesion.number: lesion.region for lesion in result.dates[0].measured.lesions}
    for date in result.dates:
        origin = (
            {part: number for number, parts in date.matches.parts.items() for part in parts} if date.matches else {}
        )
        for lesion in date.measured.lesions:
            number = origin.get(lesion.number)
            came = "new" if date.matches and number is None else str(number or "not known")
            came += " (target)" if number in result.targets else ""
            size = f"{lesion.d1:.1f} x {lesion.d2:.1f}"
            size += f" ({', '.join(lesion.by_hand)} by hand)" if lesion.by_hand else ""
            rows.append(
                (
                    f"day {date.day}",
                    str(lesion.number),
                    lesion.region,
                    came,
                    size,
                    f"{lesion.product:.0f}",
                    f"{lesion.volume_ml:.2f}",
                    str(lesion.slice),
                    "yes" if lesion.measurable else f"no: {lesion.not_measurable}",
                )
            )
        parts_of, merged = (date.matches.parts, date.matches.merged) if date.matches else ({}, {})
        for number, parts in parts_of.items():
            if not parts and number not in merged:
                what = f"{number} (target)" if number in result.targets else str(number)
                rows.append((f"day {date.day}", "-", regions[number], what, "gone", "0", "0", "", ""))
    return tuple(rows)


def _rules(dates: Sequence[Date]) -> tuple[tuple[str, ...], ...]:
    rows = [("", "criteria", "category", "met", "rule")]
    for date in dates:
        several = len(date.burdens) > 1
        judged = [(f", {burden.region}", burden.suggestions) for burden in date.burdens] if several else []
        for region, suggestions in (*judged, ("", date.suggestions)):
            for name, found in suggestions.items():
                rows += [
                    (f"day {date.day}", name + region, rule.category, "yes" if rule.met else "no", rule.text)
                    for rule in found.rules
                ]
    return tuple(rows)
