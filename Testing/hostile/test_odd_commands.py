"""What a user can cause with a command or a file of values is one line, and exit code 1."""

import pytest
from correction_runs import small_case
from segmamba import settings
from segmamba.cli import main
from segmamba.errors import InputError
from segmamba.files.atomic import check_output_file, check_output_folder

NOT_A_FOLDER = "{file}/below"
COMMANDS = {
    "predict": ["predict", "{case}", "--output", NOT_A_FOLDER],
    "predict long": ["predict", "{case}", "--output", "{tmp}/" + "x" * 300],
    "predict null": ["predict", "{case}", "--output", "{tmp}/a\0b"],
    "predict null case": ["predict", "a\0b", "--output", "{tmp}/o"],
    "predict a folder as a file": ["predict", "{case}", "--output", "{folder}/x.nii.gz/y.nii.gz"],
    "look null": ["look", "a\0b"],
    "evaluate": ["evaluate", "{case}", "{case}", "--csv", "{tmp}"],
    "export": ["export", "quick", "--output", NOT_A_FOLDER],
    "import": ["import", "{file}", "--output", NOT_A_FOLDER],
    "phantom": ["phantom", "--output", "{file}"],
    "intake": ["intake", "{case}", "--output", NOT_A_FOLDER],
    "intake null": ["intake", "a\0b"],
    "dataset init": ["dataset", "init", "{case}", "--output", NOT_A_FOLDER],
    "dataset summary": ["dataset", "summary", "a\0b"],
    "models": ["models", NOT_A_FOLDER, "start", "quick"],
    "models list": ["models", "a\0b"],
    "status": ["status", "{file}"],
    "improve": ["improve", NOT_A_FOLDER],
    "report": ["report", "a\0b"],
    "train": ["train", "{tmp}/" + "x" * 300],
    "dicom": ["dicom", "{file}"],
    "correct": ["correct", "{case}", "--labels", "{case}/x-seg.nii.gz", "--consent", "--output", NOT_A_FOLDER],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_user_can_cause_is_one_line(tmp_path, capsys, name):
    case, file, folder = small_case(tmp_path / "case"), tmp_path / "file", tmp_path / "folder"
    file.write_text("x")
    (folder / "x.nii.gz").mkdir(parents=True)
    places = {"case": case, "file": file, "tmp": tmp_path, "folder": folder}
    line = [text.format(**{key: str(value) for key, value in places.items()}) for text in COMMANDS[name]]
    assert main(line) == 1
    said = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(said) == 1 and "Traceback" not in said[0] and "unforeseen" not in said[0], said


@pytest.mark.parametrize(
    ("check", "name"), [(check_output_folder, "file/x"), (check_output_file, "x" * 300), (check_output_folder, "a\0b")]
)
def test_outputs_are_looked_at_beforehand(tmp_path, check, name):
    (tmp_path / "file").touch()
    with pytest.raises(InputError):
        check(tmp_path / name)
    check_output_folder(tmp_path / "new" / "er")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]  # nothing is made by looking


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "9" * 5000, '{"a": ' * 40 + "1" + "}" * 40, "1" * 30, '"\\u0000"', '"\\ud800"', "", "{,}", "nul"],
)
def test_json_that_is_none_of_ours(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json"):
        settings.read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="here"):
        settings.parse_toml(f"a = {text}", "here")
