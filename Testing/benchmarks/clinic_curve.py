"""`python Testing/benchmarks/clinic_curve.py MODEL CLINIC OTHER ...`: does "Improve the model" help a clinic?

A clinic unlike the training data is simulated. MODEL, which must have seen no case of CLINIC nor of the OTHERs,
segments the clinic's cases in an order drawn from a seed; each answer is corrected with the expert's labels and sent by
`segmamba correct`. After some of them `segmamba improve` runs with its defaults, always from MODEL: nothing is
promoted. Every candidate is scored on the cases of the clinic's fold that nobody sends, and on that fold of the OTHERs,
for what was forgotten. CLINIC and OTHERs are data sets with folds (`segmamba dataset split --folds`).

--damage sends a share of the cases damaged (as poisoned_corrections.py): the gate must not recommend what is learnt
from them. Such candidates are judged by the gate alone, not scored. What intake doubts is accepted, damaged or not, as
by a person who has the labels for right.

Everything is kept below --work, each order and each damage in a site of its own. A piece is one improvement with what
has to be sent before and scored after it. Killed at any point it is gone on with by the same command, and nothing that
was done is done again; what fails is named at the end, and the other pieces go on. --left says what is left, and about
how long it takes; --minutes ends before a piece that would take longer; parts can be run one by one, on several
machines too (`--orders 1 --after 5`). Writes results/clinic_curve.json, of all parts that are below --work.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from clinic_cases import BRATS_2021, CaseOf, link_case, read_cases, read_label
from clinic_plan import ROW, Piece, count_sent, is_done, keep, minutes_of, pieces, read_rows, say_what_is_left
from measure import STOPPED, describe, print_table, progress, segmamba, write_results
from poisoned_corrections import IMAGES, LABELS
from segmamba.files.shares import is_held
from segmamba.learning.site.layout import Site
from segmamba.learning.submissions.findings import DOUBTFUL
from segmamba.training.interpolation import save_between

REGIONS = ("WT", "TC", "ET")
_PAUSE = 5.0  # seconds between two looks at a site where somebody is at work


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
    parser.add_argument("--damage", nargs="+", default=["sound"], choices=[*LABELS, *IMAGES])
    parser.add_argument("--damaged", type=float, default=1.0, help="share of the cases that --damage is done to")
    parser.add_argument("--left", action="store_true", help="only say what is left, and about how long it takes")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="end before a piece that takes more CPU time than that"
    )
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
    training = [case for case in clinic if case.fold != options.fold]
    if max(options.after) > len(training):
        raise SystemExit(f"--after {max(options.after)}: the clinic has {len(training)} cases to send")
    say_what_is_left(options, scored)
    if options.left:
        return
    before = options.work / "before" / ROW
    if not before.exists():
        progress("scoring the model as it is")
        keep(before, {"sent": 0, **score(options.model, before.parent, scored, options.device)})
    failed = run_pieces(options, training, scored)
    report(options.work)
    say_what_is_left(options, scored)
    if failed:
        raise SystemExit("failed: " + "; ".join(failed))


def run_pieces(options, cases: list[CaseOf], scored: dict[str, list[CaseOf]]) -> list[str]:
    """Runs what is not done yet; returns what failed. What comes after a failed piece in its site is left."""
    until = time.monotonic() + 60 * options.minutes
    failed: dict[Path, str] = {}
    for piece in pieces(options):
        if piece.work in failed or is_done(options, piece):
            continue
        minutes = minutes_of(options, piece, scored)
        if time.monotonic() + 60 * minutes > until:
            progress(f"{piece} would take {minutes:.0f} min; run the same command again for what is left")
            break
        try:
            run_piece(options, piece, cases, scored)
        except (SystemExit, OSError, ValueError) as error:  # a command that failed, or what it wrote cannot be read
            failed[piece.work] = f"{piece} ({error})"
            progress(failed[piece.work])
    return list(failed.values())


def run_piece(options, piece: Piece, cases: list[CaseOf], scored: dict[str, list[CaseOf]]) -> None:
    site = piece.work / "site"
    site.mkdir(parents=True, exist_ok=True)
    borrow(options, site)
    if not piece.row.exists():
        wait_for(site)
        frozen = site / "runs" / f"after{piece.sent}" / "corrections" / "dataset.json"
        if count_sent(site) > piece.sent and not frozen.exists():
            raise SystemExit(f"{site} has {count_sent(site)} corrections already: fewer need another --work")
        sequence = np.random.default_rng(piece.order).permutation(len(cases))[: piece.sent]
        for number in range(count_sent(site), piece.sent):
            case = cases[sequence[number]]
            progress(f"{piece.name}: correction {number + 1}, {case.id}")
            send(options, site, case, piece.damage if is_spoilt(number, piece.damaged) else "sound")
        accept_all(site)
        progress(f"{piece.name}: improving after {piece.sent} corrections")
        facts = {"order": piece.order, "damage": piece.damage, "damaged": piece.damaged, "sent": piece.sent}
        found = improve(options, site, f"after{piece.sent}")
        model = Path(found.pop("folder"))
        if piece.damage != "sound":
            return keep(piece.row, {**facts, **found})
        progress(f"{piece.name}: scoring after {piece.sent} corrections")
        found |= score(model, piece.row.parent, scored, options.device)
        keep(piece.row, {**facts, **found, "shares": {}})
    if piece.damage == "sound":
        score_shares(options, site / "runs" / f"after{piece.sent}" / "model", piece.row, scored)


def wait_for(site: Path) -> None:
    """Until nobody is at work: the improvement of a program that was killed goes on, and ends by itself."""
    while is_held(Site(site).lock):
        progress(f"{site}: an improvement is at work; waiting for its end")
        time.sleep(_PAUSE)


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
        made = (path / name for path in sorted(options.work.glob("order*/site")) if path != site)  # whole, or not there
        source = given or next((path for path in made if (path / "dataset.json").exists()), None)
        if source is not None and not (site / name).exists():
            (site / name).symlink_to(source.resolve(), target_is_directory=True)


def send(options, site: Path, case: CaseOf, damage: str) -> None:
    """Segments the case as the clinic would see it, and sends the expert's labels as its correction."""
    swap = dict(zip(IMAGES[damage], IMAGES[damage][::-1])) if damage in IMAGES else {}
    proposals = options.work / "proposals" / (damage.replace(" ", "-") if swap else "sound")  # the same for all orders
    folder, proposal = link_case(proposals / "images" / case.id, case, swap), proposals / f"{case.id}-seg.nii.gz"
    if not is_segmented(proposal.with_name(f"{case.id}-summary.json")):
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


def is_segmented(summary: Path) -> bool:
    """Whether a prediction has come to its end: before, its summary is not there or says "unfinished"."""
    return summary.exists() and "unfinished" not in json.loads(summary.read_text(encoding="utf-8"))


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
    manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))["training"]
    return {
        "folder": str(folder),
        "steps": status["steps"],
        "share": manifest.get("interpolation", {"share": 1.0})["share"],
        **evidence(site, folder),
        # of a run that was gone on with only the rest would be told
        "minutes": None if begun else round((status["updated"] - status["started"]) / 60, 1),
        "cpu_minutes": None if begun else round(spent / 60, 1),
    }


def evidence(site: Path, candidate: Path) -> dict:
    """What intake and the gate said: verdict, the text of every check, cases of either kind."""
    gate = json.loads((candidate / "gate.json").read_text(encoding="utf-8"))
    rows = json.loads((site / "corrections" / "intake.json").read_text(encoding="utf-8"))["rows"]
    newest = [row for row in rows if row["status"] in ("train", "validation")]
    return {
        "trained": sum(row["status"] == "train" for row in rows),
        "doubtful": sum(any(found["kind"] in DOUBTFUL for found in row["findings"]) for row in newest),
        "verdict": gate["verdict"],
        "failed": [check["name"] for check in gate["checks"] if not check["holds"]],
        "checks": {check["name"]: check["text"] for check in gate["checks"]},
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
        for key in ("minutes", "cpu_minutes"):
            told = [row[key] for row in of_key if row[key] is not None]
            line[key] = float(np.median(told)) if told else None
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
