"""What of a path and of a name is left in the report that a user copies into a question: nothing."""

import pytest
from SegMambaSlicerLib.report import scrub


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("cannot read /home/Erika Mustermann/MRI scans/t1 c.nii.gz: damaged", "cannot read <path>: damaged"),
        ("C:\\Users\\Erika Mustermann\\x y.nrrd: no image", "<path>: no image"),
        ("/data/Mustermann, Erika/1957 03 12, cut off", "<path>, cut off"),
        ("\\\\server\\share name\\Erika M\\t1 c.nii", "<path>"),
        ("the folder /mnt/Erika Mustermann is out of reach", "the folder <path>"),
        ('File "/opt/x y/segmamba/cli.py", line 3, in f', "File segmamba/cli.py, line 3, in f"),
        ("3 mm / 4 mm", "3 mm / 4 mm"),
        ("the site (/srv/Mustermann Erika) is full: 0 bytes", "the site (<path>: 0 bytes"),
        ("folder=/srv/Mustermann Erika; 3 cases", "folder=<path>; 3 cases"),
        ("--site=C:\\Mustermann Erika, 3 cases", "--site=<path>, 3 cases"),
        ("see file:///home/erika/x y.nii", "see file:<path>"),
        ("../Mustermann Erika/x y.nii: no image", "<path>: no image"),
        ("/data/O'Brien John/site: no such file", "<path>: no such file"),
        ("/data/James' first scan: no such file", "<path>: no such file"),
        ("cannot open '/data/O'Brien John/site', 3 tries", "cannot open <path>, 3 tries"),
        ("scans/O'Brien/t1.nii or O'Brien/t1.nii", "<path> or <path>"),
        ("scans/a b,O'Brien/c;x=t1/d", "<path> b,<path>;<path>"),
        ("pip: https://pypi.org/simple failed with 404", "pip: <path> failed with 404"),
        ("File '/opt/x/segmamba/cli.py', line 3", "File segmamba/cli.py, line 3"),
    ],
)
def test_paths_go_with_their_spaces(line, left):
    assert scrub(line) == left


def test_a_path_goes_whole_where_a_part_of_it_is_a_known_name():
    line = "/srv/Mustermann Erika/x y.nii: of Mustermann, damaged"
    assert scrub(line, {"Mustermann"}) == "<path>: of <name>, damaged"


def test_a_long_line_without_a_path_stays():
    """And does not hold up Slicer, as it did when a path was looked for from each of its letters on."""
    line = "word " + "x" * 100_000
    assert scrub(line) == line
