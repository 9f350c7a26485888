"""A worker that speaks the line protocol and behaves as it is told: for tests of client and panel, without torch.

python fake_worker.py BEHAVIOUR ...   where BEHAVIOUR is one of those below; anything after it is ignored.
"""

import json
import os
import sys
import time
from pathlib import Path

BEHAVIOURS = (
    "well", "slow", "deaf", "babbling", "dying", "mute", "other-grid", "no-file", "refusing", "broken-model", "missing",
    "leaving-out", "broken-gpu",
)  # fmt: skip


def say(**event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def machine():
    cpu = {"name": "cpu", "title": "CPU", "free_bytes": 8e9, "total_bytes": 16e9}
    cpu["expected_seconds"] = {"0": 12, "1": 24, "3": 48, "7": 95}
    return {
        "protocol": 1,
        "version": "9.9",
        "python": "3.12.0",
        "packages": {"torch": "2.8", "numpy": None},
        "devices": [cpu],
        "models": [{"name": "quick", "title": "Quick model", "folder": "/models/quick"}],
        "scan_backend": {},
        "prepare_seconds": 30,
        "complete": True,
    }


def steps(images, reference):
    """That the images on other grids than `reference` were registered, with what was given."""
    import nibabel
    import numpy as np

    found, titles = [], {"t1n": "T1", "t2w": "T2", "t2f": "FLAIR"}
    for modality, path in images.items():
        image = nibabel.load(path)
        if image.shape != reference.shape or not np.allclose(image.affine, reference.affine, atol=1e-3):
            text = f"{titles[modality]} registered, {' x '.join(map(str, image.shape))} voxels"
            transform = np.eye(4)
            transform[:3, 3] = 1, 2, 3
            step = {"kind": "register", "modality": modality, "text": text, "left_alone": False}
            found.append({**step, "seconds": 0.1, "transform": transform.tolist()})
    return found


def segment(request):
    import nibabel
    import numpy as np

    image = nibabel.load(request["images"]["t1c"])
    labels = np.zeros(image.shape, np.uint8)
    x, y, z = (size // 3 for size in image.shape)
    labels[x : 2 * x, y : 2 * y, z : 2 * z] = 2
    labels[x + 1 : 2 * x - 1, y + 1 : 2 * y - 1, z + 1 : 2 * z - 1] = 3
    labels[x + 1 : 2 * x - 1, y + 2 : 2 * y - 2, z + 1 : 2 * z - 1] = 1
    affine = image.affine.copy()
    affine[:3, 3] += 5 if "other-grid" in sys.argv else 0
    output = Path(request["output"])
    nibabel.save(nibabel.Nifti1Image(labels, affine), output / "case-seg.nii")
    unsure = np.where(labels > 0, 0.6, 0.02).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(unsure, affine), output / "case-uncertainty.nii")
    if "no-file" in sys.argv:
        (output / "case-seg.nii").unlink()
    left_out = None
    if "leaving-out" in sys.argv and request.get("postprocess") == "never":
        labels[:2, :2, :2] = 2
        nibabel.save(nibabel.Nifti1Image(labels, affine), output / "case-seg.nii")
    elif "leaving-out" in sys.argv:
        spots = np.zeros(image.shape, np.uint8)
        spots[:2, :2, :2] = 2
        nibabel.save(nibabel.Nifti1Image(spots, affine), output / "case-left-out.nii")
        ml = round(8 * float(abs(np.linalg.det(affine[:3, :3]))) / 1000, 3)
        left_out = {"spots": 1, "ml": ml, "text": "Too small", "file": str(output / "case-left-out.nii")}
    return {
        "left_out": left_out,
        "label_map": str(output / "case-seg.nii"),
        "uncertainty": str(output / "case-uncertainty.nii"),
        "model": "fake-1",
        "device": "cpu",
        "mirrorings": request.get("mirrorings", 0),
        "unsure": 0.25,
        "seconds": {"total": 0.1},
        "steps": steps(request["images"], image) if request.get("prepare", "auto") == "auto" else [],
        "warnings": ["It was only a test."],
    }


def main():
    behaviour = sys.argv[1]
    assert behaviour in BEHAVIOURS
    sys.modules["pydicom"] = None  # not needed here, and half the time that nibabel takes to be imported
    if behaviour == "missing":
        sys.exit("ModuleNotFoundError: No module named 'torch'")
    if behaviour == "babbling":
        os.write(1, b'Loading plug-ins...\n\xff\xfe not text\n[1, 2]\n{"event": "result", "id": "777"}\n{"ev')
        time.sleep(0.05)
        os.write(1, b'ent": "strange", "id": null}\nnull\n{}\n' + b"x" * 300_000 + b"\n")
    running = None
    for line in sys.stdin:
        request = json.loads(line)
        name, command = request["id"], request["command"]
        if behaviour == "mute":
            continue
        if command == "hello" and behaviour == "babbling":  # in pieces, as pipes deliver
            text = json.dumps({"event": "result", "id": name, **machine()}).encode() + b"\n"
            os.write(1, text[:40])
            time.sleep(0.1)
            os.write(1, text[40:])
        elif command == "hello":
            say(event="result", id=name, **machine())
        elif command == "cancel" and behaviour != "deaf":
            say(event="error", id=request["target"], kind="cancelled", message="Cancelled.", detail="")
            say(event="result", id=name, cancelled=True)
            running = None
        elif command == "shutdown":
            say(event="result", id=name)
            return
        elif command == "segment" and running:
            say(event="error", id=name, kind="busy", message="Another case is running.", detail="")
        elif command == "segment":
            say(event="log", id=None, level="info", message="model fake-1 was loaded", source="engine")
            stages = (("load", 0.1, None), ("inference", 0.5, 7.4))
            for stage, fraction, left in stages:
                say(event="progress", id=name, stage=stage, text=f"Doing {stage}", fraction=fraction, seconds_left=left)
            if behaviour in ("slow", "deaf"):
                running = name
            elif behaviour == "dying":
                sys.stderr.write("Traceback\nMemoryError: Unable to allocate 9 GiB\n")
                sys.stderr.flush()
                os._exit(3)
            elif behaviour == "broken-gpu":  # as CUDA after the computer slept: as long as the process lives
                say(event="error", id=name, kind="internal", message="CUDA error: unknown error", detail="Traceback")
                time.sleep(0.2)  # so that what is asked meanwhile is answered after it
            elif behaviour in ("refusing", "broken-model"):
                kind = "input" if behaviour == "refusing" else "model"
                say(event="error", id=name, kind=kind, message=f"The {kind} is wrong; mend it.", detail="Traceback")
            else:
                say(event="result", id=name, **segment(request))


if __name__ == "__main__":
    main()
