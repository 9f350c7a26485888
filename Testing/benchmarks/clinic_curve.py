"""`python Testing/benchmarks/clinic_curve.py MODEL CLINIC OTHER ...`: does "Improve the model" help a clinic?

A clinic unlike the training data is simulated. MODEL, which must have seen no case of CLINIC nor of the OTHERs,
segments the clinic's cases in an order drawn from a seed; each answer is corrected with the expert's labels and sent by
`segmamba correct`. After some of them `segmamba improve` runs with its defaults, always from MODEL: nothing is
promoted. Every candidate is scored on the cases of the clinic's fold that nobody sends, and on that fold of the OTHERs,
for what was forgotten. CLINIC and OTHERs are data sets with folds (`segmamba dataset split --folds`).

--damage sends a share of the cases damaged (as poisoned_corrections.py) and accepts them against the advice of intake:
the gate must not recommend what is learnt from them. Such candidates are judged by the gate alone, not scored.

Everything is kept below --work, each order and each damage in a site of its own: what was stopped goes on where it was,
and parts can be run one by one, on several machines too (`--orders 1 --after 5`). Writes results/clinic_curve.json, of
all parts that are below --work.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from measure import STOPPED, describe, print_table, progress, segmamba, write_results
from poisoned_corrections import IMAGES, LABELS
from segmamba.training.interpolation import save_between

REGIONS = ("WT", "TC", "ET")
ROW = "row.json"
BRATS_2021 = {"NCR": 1, "ED": 2, "ET": 4}  # as the damages of poisoned_corrections know them


@dataclass(frozen=True)
class CaseOf:
    """A case of a data set: its images by modality, its label map, the names of that map's values."""

    id: str
    subject: str
    fold: int
    images: dict[str, Path]
    label: Path
    names: dict[int, str]


def main() -> None:
    parser = argparse.ArgumentParser(description="Dice on a clinic's unseen cases against the number of corrections.")
    parser.add_argument("model", type=Path)
    parser.add_argument("clinic", type=Path)
    parser.add_argument("others", type=Path, nargs="+")
    parser.add_argument("--work", type=Path, default=Path("runs/clinic"))
    parser.add_argument("--after", type=int, nargs="+", default=[1, 3, 5, 10, 15], help="corrections")
    parser.add_argument("--orders", type=int, nargs="+", default=[0, 1, 2], help="seeds")
    parser.add_argument("--fold", type=int, default=0, help="whose cases are scored")
    parser.add_argument("--score", type=int, help="at most so many cases of each data set")
    parser.add_argument("--damage", choices=[name for name in (*LABELS, *IMAGES) if name != "sound"])
    parser.add_argument("--damaged", type=float, default=1.0, help="share of the cases that --damage is done to")
    parser.add_argument("--steps", type=int, help="of a fine-tuning, instead of the default")
    parser.add_argument(
        "--shares", type=float, nargs="*", default=[], help="of the fine-tuning, scored beside the one chosen"
    )
    parser.add_argument("--replay", type=Path, help="data set that sites replay, instead of their own phantoms")
    parser.add_argument("--anchor", type=Path, help="data set that sites are judged on, instead of their own phantoms")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    clinic = read_cases(options.clinic)
    unseen = [case for case in clinic if case.fold == options.fold][: options.score]
    others = [[c for c in read_cases(o) if c.fold == options.fold][: options.score] for o in options.others]
    scored = {"unseen": unseen, "others": [case for cases in others for case in cases]}
    if not all(scored.values()):
        raise SystemExit(f"fold {options.fold} has no case of the clinic, or none of the others")
    before = options.work / "before" / ROW
    if not before.exists():
        progress("scoring the model as it is")
        keep(before, {"sent": 0, **score(options.model, before.parent, scored, options.device)})
    for order in options.orders:
        run_order(options, order, [case for case in clinic if case.fold != options.fold], scored)
    report(options.work)


def read_cases(folder: Path) -> list[CaseOf]:
    """The labelled cases of a data set with folds."""
    manifest = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    folds = json.loads((folder / "splits.json").read_text(encoding="utf-8"))["subjects"]
    names = {int(value): name for value, name in manifest["label_values"].items() if int(value)}
    return [
        CaseOf(
            id=case["id"],
            subject=case["subject"],
            fold=folds[case["subject"]],
            images={m: (folder / image["path"]).resolve() for m, image in case["images"].items()},
            label=(folder / case["label"]["path"]).resolve(),
            names=names,
        )
        for case in manifest["cases"]
        if case["label"]
    ]


def run_order(options, order: int, cases: list[CaseOf], scored: dict[str, list[CaseOf]]) -> None:
    damage = options.damage or "sound"
    share = options.damaged if options.damage else 0.0
    name = f"order{order}" + (f"-{damage.replace(' ', '-')}-{share:g}" if options.damage else "")
    work = options.work / name
    site = work / "site"
    site.mkdir(parents=True, exist_ok=True)
    borrow(options, site)
    rng = np.random.default_rng(order)
    sequence = [cases[k] for k in rng.permutation(len(cases))]
    for count, case in enumerate(sequence[: max(options.after)], 1):
        mark = work / f"sent{count}"
        if not mark.exists():
            progress(f"{name}: correction {count}, {case.id}")
            send(options, site, case, damage if is_spoilt(count - 1, share) else "sound")
            mark.touch()
        row = work / f"after{count}" / ROW
        if count in options.after and not row.exists():
            if options.damage:
                accept_all(site)
            progress(f"{name}: improving after {count} corrections")
            found = improve(options, site, f"after{count}")
            facts = {"order": order, "damage": damage, "damaged": share, "sent": count}
            model = Path(found.pop("folder"))
            if options.damage:
                keep(row, {**facts, **found})
                continue
            progress(f"{name}: scoring after {count} corrections")
            found |= score(model, row.parent, scored, options.device)
            keep(row, {**facts, **found, "shares": {}})
        if count in options.after and not options.damage:
            score_shares(options, site / "runs" / f"after{count}" / "model", row, scored)


def score_shares(options, tuned: Path, path: Path, scored: dict[str, list[CaseOf]]) -> None:
    """Adds to a row what weights some of the way from the model to the fine-tuned one do; nothing is trained again."""
    row = json.loads(path.read_text(encoding="utf-8"))
    for part in (part for part in options.shares if f"{part:g}" not in row["shares"]):
        between = path.parent / f"share-{part:g}"
        save_between(between / "model", options.model, tuned, part)
        row["shares"][f"{part:g}"] = score(between / "model", between, scored, options.device)
        keep(path, row)


def is_spoilt(number: int, share: float) -> bool:
    """Whether the case of that number, from 0, is damaged: a tenth of five cases is one, the first."""
    until, after = (math.ceil(round(count * share, 6)) for count in (number, number + 1))
    return until < after


def borrow(options, site: Path) -> None:
    """Old data are the same for all sites: of the options, or as the first site makes them."""
    for name, given in (("replay", options.replay), ("anchor", options.anchor)):
        made = (path / name for path in sorted(options.work.glob("order*/site")) if path != site)
        source = given or next((path for path in made if (path / "dataset.json").exists()), None)
        if source is not None and not (site / name).exists():
            (site / name).symlink_to(source.resolve(), target_is_directory=True)


def send(options, site: Path, case: CaseOf, damage: str) -> None:
    """Segments the case as the clinic would see it, and sends the expert's labels as its correction."""
    swap = dict(zip(IMAGES[damage], IMAGES[damage][::-1])) if damage in IMAGES else {}
    proposals = options.work / "proposals" / (damage.replace(" ", "-") if swap else "sound")  # the same for all orders
    folder, proposal = link_case(proposals / "images" / case.id, case, swap), proposals / f"{case.id}-seg.nii.gz"
    if not proposal.exists():
        segmamba("predict", folder, "--output", proposals, "--model", options.model, "--device", options.device)
    voxels, affine = read_label(case)
    voxels = np.ascontiguousarray(LABELS.get(damage, LABELS["sound"])(voxels))
    label = site.with_name("label.nii.gz")
    nib.save(nib.Nifti1Image(voxels, affine), label)
    absent = [name for name, value in BRATS_2021.items() if not (voxels == value).any()]
    segmamba(
        *("correct", folder, "--labels", label, "--proposal", proposal),
        *("--output", site / "corrections", "--convention", "brats2021", "--subject", case.subject),
        *("--role", "expert", "--consent", *(part for name in absent for part in ("--empty", name))),
    )


def read_label(case: CaseOf) -> tuple[np.ndarray, np.ndarray]:
    """-> (uint8 voxels with the values of BRATS_2021, affine)."""
    image = nib.load(case.label)
    stored = np.asarray(image.dataobj)
    voxels = np.zeros(stored.shape, np.uint8)
    for value, name in case.names.items():
        voxels[stored == value] = BRATS_2021[name]
    return voxels, image.affine


def link_case(folder: Path, case: CaseOf, swap: dict[str, str]) -> Path:
    """A case folder of links. swap: which modality is given out as which."""
    folder.mkdir(parents=True, exist_ok=True)
    for modality, path in case.images.items():
        link = folder / f"{case.id}-{swap.get(modality, modality)}.nii.gz"
        if not link.exists():
            link.symlink_to(path)
    return folder


def accept_all(site: Path) -> None:
    """What a person can accept against the advice of intake."""
    corrections = site / "corrections"
    rows = json.loads(segmamba("intake", corrections, "--json", may_refuse=True))["rows"]
    refused = [part for row in rows if row["status"] in STOPPED for part in ("--accept", row["name"])]
    if refused:
        segmamba("intake", corrections, *refused, "--reason", "to see what the gate says", "--json", may_refuse=True)


def improve(options, site: Path, run: str) -> dict:
    """What the run's status and evidence say. A run that was begun goes on as it was begun."""
    begun = (site / "runs" / run / "improve.json").exists()
    steps = ("--steps", options.steps) if options.steps and not begun else ()
    asked = ("--run", run, "--model", options.model, "--device", options.device, *steps)
    before = cpu_seconds()
    status = json.loads(segmamba("improve", site, *asked, "--json"))
    spent = cpu_seconds() - before
    folder = site / "models" / "models" / status["candidate"]
    gate = json.loads((folder / "gate.json").read_text(encoding="utf-8"))
    manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))["training"]
    rows = json.loads((site / "corrections" / "intake.json").read_text(encoding="utf-8"))["rows"]
    return {
        "folder": str(folder),
        "steps": status["steps"],
        "trained": sum(row["status"] == "train" for row in rows),
        "verdict": status["verdict"],
        "failed": [check["name"] for check in gate["checks"] if not check["holds"]],
        "share": manifest.get("interpolation", {"share": 1.0})["share"],
        "minutes": round((status["updated"] - status["started"]) / 60, 1),
        "cpu_minutes": round(spent / 60, 1),  # without what a run that was stopped had used
    }


def cpu_seconds() -> float:
    """Of the commands that have ended: on a busy machine the clock says little."""
    used = os.times()
    return used.children_user + used.children_system


def score(model: Path, folder: Path, scored: dict[str, list[CaseOf]], device: str) -> dict:
    """{"unseen", "others"}: {"mean": [WT, TC, ET], "cases": {case: [WT, TC, ET]}} of Dice on the cases' own grids."""
    found = {}
    for name, cases in scored.items():
        links, answers, truths = (folder / f"{name}-{part}" for part in ("cases", "answers", "truths"))
        truths.mkdir(parents=True, exist_ok=True)
        for case in cases:
            link_case(links / case.id, case, {})
            nib.save(nib.Nifti1Image(*read_label(case)), truths / f"{case.id}-seg.nii.gz")
        segmamba("predict", "--batch", links, "--output", answers, "--model", model, "--device", device)
        of_case = json.loads(segmamba("evaluate", answers, truths, "--labels", "brats2021", "--json"))["cases"]
        dice = {case: [scores["dice"][region] for region in REGIONS] for case, scores in of_case.items()}
        found[name] = {"mean": np.mean(list(dice.values()), axis=0).tolist(), "cases": dice}
    return found


def keep(path: Path, row: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)


def read_rows(work: Path) -> Iterator[dict]:
    for path in sorted(work.glob(f"order*/after*/{ROW}")):
        yield json.loads(path.read_text(encoding="utf-8"))


def summarize(before: dict, rows: list[dict]) -> list[dict]:
    """A line for each damage and number of corrections: change of the mean Dice, its standard deviation over orders,
    and the verdicts."""
    lines = []
    keys = sorted({(row["damage"], row["damaged"], row["sent"]) for row in rows})
    for damage, damaged, sent in keys:
        of_key = [row for row in rows if (row["damage"], row["damaged"], row["sent"]) == (damage, damaged, sent)]
        line = {"damage": damage, "damaged": damaged, "sent": sent, "orders": len(of_key)}
        for name in ("unseen", "others"):
            changes = [np.mean(row[name]["mean"]) - np.mean(before[name]["mean"]) for row in of_key if name in row]
            if not changes:
                continue
            line[name] = [float(np.mean(changes)), float(np.std(changes, ddof=1)) if len(changes) > 1 else None]
        line["verdicts"] = {v: sum(row["verdict"] == v for row in of_key) for v in ("promote", "confirm", "refuse")}
        line |= {key: float(np.median([row[key] for row in of_key])) for key in ("minutes", "cpu_minutes")}
        lines.append(line)
    return lines


def report(work: Path) -> None:
    before = json.loads((work / "before" / ROW).read_text(encoding="utf-8"))
    rows = list(read_rows(work))
    lines = summarize(before, rows)
    write_results("clinic_curve", {**describe(), "summary": lines, "before": before, "rows": rows})
    table = []
    for line in lines:
        means = (line.get(name) for name in ("unseen", "others"))
        changes = ["" if m is None else f"{m[0]:+.3f}" + ("" if m[1] is None else f" +- {m[1]:.3f}") for m in means]
        name = line["damage"] if line["damage"] == "sound" else f"{line['damage']}, {line['damaged']:.0%}"
        table.append([name, str(line["sent"]), str(line["orders"]), *changes, *map(str, line["verdicts"].values())])
    header = ("corrections", "sent", "orders", "unseen", "others", "better", "not worse", "worse")
    print_table("change of mean Dice", header, table)


if __name__ == "__main__":
    main()
