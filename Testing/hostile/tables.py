"""Every JSON and TOML file of ours, sound, with what reads it and goes on with what it says."""

import json
from pathlib import Path

import mutations
import numpy as np
from correction_runs import send, small_case
from segmamba import __version__, settings
from segmamba.datasets.find import find_cases
from segmamba.datasets.manifest import read_dataset
from segmamba.datasets.split import make_split, read_split
from segmamba.datasets.tables import format_summary
from segmamba.datasets.task import read_task
from segmamba.errors import InputError
from segmamba.evaluation.report import page, read_log
from segmamba.followup.by_hand import read_by_hand
from segmamba.followup.record import read_registrations
from segmamba.learning.gate.scores import Scored
from segmamba.learning.registry.state import format_registry
from segmamba.learning.site import Site, summarise
from segmamba.learning.site.plan import begin_plan
from segmamba.learning.submissions.intake import ingest
from segmamba.learning.submissions.record import read_record
from segmamba.learning.submissions.verdicts import known_verdict
from segmamba.learning.submissions.write import proposal_facts, read_salt
from segmamba.models.package import find_model, read_manifest
from segmamba.training.config import load_config
from segmamba.worker.requests import ProtocolError, parse
from segmamba.worker.timing import Record

_TEXTS = {".toml", ".jsonl"}


def kinds(folder: Path) -> list[tuple[Path, object, object]]:
    """(path, its values, what reads it) of each."""
    site = Site(folder / "site")
    submission = send(site.corrections, small_case(folder / "case"))
    ingest(site.corrections)
    verdict = site.corrections / "verdicts" / f"{submission.name}.json"
    data = folder / "data"
    model, run = folder / "model", site.run("finetune-0001")
    for place in (data, model, run, site.models):
        place.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((find_model("quick") / "model.json").read_text())
    entry = {"state": "champion", "id": "a", "parent": None, "weights_sha256": "0" * 64, "manifest_sha256": "1" * 64}
    event = {"what": "start", "model": "a-1", "evidence": {"verdict": "promote"}, "reason": "first", "time": 1}
    registry = {"schema": 1, "champion": "a-1", "before": ["a-1"], "models": {"a-1": entry}, "history": [event]}
    status = {"run": "finetune-0001", "way": "finetune", "state": "training", "text": "x", "pid": 1, "host": "h"}
    status |= {"started": 1.0, "updated": 2.0, "step": 3, "candidate": "a-1", "verdict": "promote"}
    statistic = {
        "min": 0,
        "max": 9,
        "mean": 3,
        "std": 1,
        "percentiles": {"0.5": 0, "5": 1, "50": 3, "95": 8, "99.5": 9},
    }
    case = {
        "id": "a", "subject": "s", "shape": [9, 11, 7], "spacing": [2.0, 3.0, 4.0],
        "images": {m: {"path": f"a/{m}.nii.gz", "sha256": "0" * 64} for m in ("t1n", "t1c", "t2w", "t2f")},
        "label": {"path": "a/seg.nii.gz", "sha256": "0" * 64},
        "statistics": {
            "orientation": "RAS", "left_handed": False, "foreground": {"share": 0.5, "box": [[0, 9], [0, 11], [0, 7]]},
            "images": {m: {"content": m, **statistic} for m in ("t1n", "t1c", "t2w", "t2f")}, "notes": [],
            "labels": {name: {"voxels": 5, "ml": 0.1} for name in ("NCR", "ED", "ET")}, "label_content": "x",
            "labelled": {m: statistic for m in ("t1n", "t1c", "t2w", "t2f")},
        },
    }  # fmt: skip
    dataset = {
        "schema": 1, "name": "d", "modalities": ["t1n", "t1c", "t2w", "t2f"], "labels": {"NCR": 1, "ED": 2, "ET": 3},
        "regions": {"WT": ["NCR", "ED", "ET"], "TC": ["NCR", "ET"], "ET": ["ET"]},
        "label_values": {"1": "NCR", "2": "ED", "3": "ET"}, "cases": [case], "made": {"source": "."}, "left_out": {},
    }  # fmt: skip
    from segmamba.datasets.fingerprint import fingerprint
    from segmamba.datasets.manifest import CaseEntry

    entries = (settings.build(CaseEntry, case, ""),)
    dataset["fingerprint"] = fingerprint(entries, tuple(dataset["modalities"]), tuple(dataset["labels"]))
    split = {"schema": 1, "seed": 1, "folds": 2, "shares": None, "subjects": {"s": 0}}
    lines = [{"kind": "step", "step": k, "loss": 1.0, "learning_rate": 1e-3, "gradient_norm": 1.0, "stall": 0.1,
              "seconds_per_step": 1, "skipped": 0, "time": 1.0 + k} for k in (1, 2)]  # fmt: skip
    score = {"dice": 0.5, "hd95": 3.0}
    lines += [{"kind": "validation", "step": 2, "mean": {"WT": score}, "cases": {"a": {"WT": score}}, "seconds": 1.0}]
    lines += [{"kind": "event", "step": 2, "text": "x", "time": 5.0}]
    record = {"config": {"name": "x", "network": {"name": "segmamba"}, "steps": 5}, "versions": {}, "hardware": {},
              "cases": {"a": "x"}, "held_out": {"b": "y"}}  # fmt: skip
    plan = {"schema": 1, "way": "finetune", "steps": 5, "initial": "a-1", "trained": None, "candidate": None}
    task = {"modalities": ["ct"], "labels": {"liver": 1, "tumour": [2, 3]}, "regions": {"all": ["liver", "tumour"]}}
    config = {"name": "x", "steps": 5, "sources": [{"dataset": "data", "fold": 0, "validate": True}], "batch": 1}
    request = {"id": "1", "command": "segment", "images": {"t1n": "/a", "t1c": "/b"}, "output": "/o", "mirrorings": 1,
               "device": "cpu", "prepare": "auto", "brain_mask": None, "probabilities": False}  # fmt: skip
    times = {"runs": {"a | cpu": {"load": 1, "prepare": 1, "preprocess": 1, "postprocess": 1, "write": 1, "pass": 1,
                                  "passes": 8}}}  # fmt: skip
    summary = {"model": "quick-2", "settings": {"mirrorings": 1, "remove_small_mm3": {}, "weights_sha256": "0" * 64}}
    scored = {"scores": {"dice": {"WT": 0.5}}, "finite": True, "seconds": 1.0, "truth_mm3": {"WT": 9.0}}
    listed = [{"id": "a", "subject": "s", "t1n": "a.nii", "t1c": "b.nii", "t2w": "c.nii", "t2f": "d.nii"}]
    split_path, dataset_path = data / "splits.json", data / "dataset.json"

    def of_dataset():
        found = read_dataset(data)
        format_summary(found)
        return found

    def of_split():
        found = read_dataset(data)
        read_split(found)
        make_split(found)

    def of_request():
        try:
            parse((folder / "request.json").read_bytes().replace(b"\n", b" "))
        except ProtocolError as error:
            raise InputError(str(error)) from None

    def of_run():
        page._header("x", read_log(run), page._read_record(run))  # the rest of the page is drawn, which takes seconds

    report, salt = site.corrections / "intake.json", site.corrections / "identity" / "identity.json"
    submitted = submission / "case.json"
    ends = [[1.0, 2, 3], [4, 5, 6.5]]
    hand = {"schema": 1, "lines": [{"day": 0, "which": "D1", "ends": ends, "region": "ET"}]}
    hand["clinician"] = [{"day": 0, "steroids": "more", "clinical_status": "same", "non_target_lesions": "x"}]
    moved = {"transform": np.eye(4).tolist(), "quality": 1.0, "overlap": 1.0, "seen": 1.0, "agreeing": 3, "starts": 9}
    moved["moved_mm"] = 2.0
    dates = [{"t1c": "0" * 32, "registration": None, "problem": ""}, {"t1c": "1" * 32, "registration": moved}]
    dates[1]["problem"] = ""
    followed = {"schema": 1, "software": f"segmamba {__version__}", "dates": dates}
    made = [
        (submitted, json.loads(submitted.read_text()), lambda: ingest(site.corrections)),
        (submitted, json.loads(submitted.read_text()), lambda: read_record(submission)),
        (verdict, json.loads(verdict.read_text()), lambda: known_verdict(site.corrections, submission)),
        (report, json.loads(report.read_text()), lambda: summarise(site)),
        (salt, {"schema": 1, "salt": "ab" * 32}, lambda: read_salt(site.corrections)),
        (site.models / "registry.json", registry, lambda: format_registry(site.models)),
        (site.models / "registry.json", registry, lambda: summarise(site)),
        (run / "status.json", status, lambda: summarise(site)),
        (run / "improve.json", plan, lambda: begin_plan(run, None, None)),
        (run / "log.jsonl", lines, lambda: summarise(site, run.name)),
        (run / "log.jsonl", lines, of_run),
        (run / "config.json", record, of_run),
        (model / "model.json", manifest, lambda: read_manifest(model)),
        (dataset_path, dataset, of_dataset),
        (split_path, split, of_split),
        (folder / "task.json", task, lambda: read_task(folder / "task.json")),
        (folder / "task.toml", task, lambda: read_task(folder / "task.toml")),
        (folder / "config.toml", config, lambda: load_config(folder / "config.toml", [])),
        (folder / "list.json", listed, lambda: find_cases(folder / "list.json")),
        (folder / "request.json", request, of_request),
        (folder / "times.json", times, lambda: Record(folder / "times.json").expect({"id": "a"}, "cpu", 0)),
        (folder / "hand.json", hand, lambda: read_by_hand(folder / "hand.json")),
        (folder / "follow-up.json", followed, lambda: read_registrations(folder / "follow-up.json")),
        (folder / "x-summary.json", summary, lambda: proposal_facts(folder / "x-seg.nii.gz")),
        (folder / "score.json", scored, lambda: settings.build(Scored, settings.read_json(folder / "score.json"), "x")),
    ]  # fmt: skip
    for path, values, _ in made:
        restore(path, values)
    for path, _, read in made:  # sound files first: what is refused later is refused for its damage
        if path.name not in ("registry.json",):
            read()
    return made


def damaged(rng: np.random.Generator, path: Path, values: object) -> bytes:
    if path.suffix == ".jsonl":
        lines = [json.dumps(line).encode() for line in values]
        place = int(rng.integers(len(lines)))
        lines[place] = mutations.damage_json(rng, values[place])
        return b"\n".join(lines)
    if path.suffix == ".toml":
        if rng.random() < 0.5:
            return mutations.damage_bytes(rng, as_toml(values).encode())
        odd = [
            "9" * 5000,
            "[" * 2000,
            "nan",
            "inf",
            "true",
            "[]",
            "''",
            "1979-05-27",
            "{a = 1}",
            "-1",
            "[[[[1]]]]",
            "1e400",
        ]
        lines = as_toml(values).splitlines()
        place = int(rng.integers(len(lines)))
        lines[place] = f"{lines[place].partition('=')[0]} = {odd[int(rng.integers(len(odd)))]}"
        return "\n".join(lines).encode()
    return mutations.damage_json(rng, values)


def restore(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(line) for line in values) + "\n")
    else:
        path.write_text(as_toml(values) if path.suffix == ".toml" else json.dumps(values))


def as_toml(values: dict) -> str:
    plain = {k: v for k, v in values.items() if not isinstance(v, dict) and not _is_tables(v)}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in plain.items())
    for key, value in values.items():
        if isinstance(value, dict):
            text += f"[{key}]\n" + "".join(f"{name} = {json.dumps(inner)}\n" for name, inner in value.items())
        elif _is_tables(value):
            text += "".join(f"[[{key}]]\n" + as_toml(table) for table in value)
    return text


def _is_tables(value) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)
