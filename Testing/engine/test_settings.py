"""Settings from TOML and JSON to dataclasses, overrides, and the configurations of trainings."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
from segmamba.errors import InputError
from segmamba.models.specs import InferenceSpec
from segmamba.settings import build, merge, override, parse_toml, plain, read_json

CONFIGS = Path(__file__).resolve().parents[2] / "Training" / "configs"


@dataclass(frozen=True)
class Inner:
    radius: float
    name: str = "ball"


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner
    many: tuple[Inner, ...] = ()
    pair: tuple[int, str] = (1, "one")
    sides: tuple[float, ...] = ()
    maybe: int | None = None
    other: Inner | None = None
    flag: bool = False
    free: dict | None = None


def refused(values, cls=Outer):
    with pytest.raises(InputError) as error:
        build(cls, values, "here")
    assert str(error.value).startswith("here")
    return str(error.value)


# --- values


def test_nested_values():
    values = {
        "count": 3,
        "inner": {"radius": 2},
        "many": [{"radius": 1.5, "name": "a"}, {"radius": 0.0}],
        "pair": [7, "seven"],
        "sides": [1, 2.5],
        "maybe": 4,
        "other": {"radius": 9},
        "flag": True,
        "free": {"anything": [1, {"goes": None}]},
    }
    built = build(Outer, values, "here")
    assert built == Outer(
        3,
        Inner(2.0),
        (Inner(1.5, "a"), Inner(0.0)),
        (7, "seven"),
        (1.0, 2.5),
        4,
        Inner(9.0),
        True,
        {"anything": [1, {"goes": None}]},
    )
    assert type(built.inner.radius) is float and type(built.sides[0]) is float


def test_defaults_and_nothing():
    assert build(Outer, {"count": 1, "inner": {"radius": 1}, "maybe": None}, "here") == Outer(1, Inner(1.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cuont": 1}, "here: unknown setting 'cuont'; did you mean 'count'?"),
        ({"inner": {"radius": 1, "nmae": "x"}}, "here: inner: unknown setting 'nmae'; did you mean 'name'?"),
        ({"many": [{"radius": 1}, {"radus": 1}]}, "here: many[1]: unknown setting 'radus'; did you mean 'radius'?"),
        ({"xyz": 1}, "unknown setting 'xyz'; known are ['count', 'inner'"),
        ({"count": "3"}, "here: count: expected int, got '3'"),
        ({"count": 3.0}, "here: count: expected int, got 3.0"),
        ({"count": True}, "here: count: expected int, got True"),
        ({"inner": {"radius": True}}, "here: inner: radius: expected float, got True"),
        ({"inner": {"radius": "wide"}}, "here: inner: radius: expected float, got 'wide'"),
        ({"inner": 3}, "here: inner: expected a table of settings, got 3"),
        ({"inner": {}}, "here: inner: missing 'radius'"),
        ({"many": {"radius": 1}}, "here: many: expected a list"),
        ({"many": "balls"}, "here: many: expected a list, got 'balls'"),
        ({"many": [3]}, "here: many[0]: expected a table"),
        ({"pair": [1]}, "here: pair: expected 2 values, got [1]"),
        ({"pair": [1, "a", "b"]}, "here: pair: expected 2 values"),
        ({"pair": ["one", 1]}, "here: pair: expected int, got 'one'"),
        ({"sides": [1, "two"]}, "here: sides[1]: expected float, got 'two'"),
        ({"maybe": "x"}, "here: maybe: expected int, got 'x'"),
        ({"other": {"radius": []}}, "here: other: radius: expected float"),
        ({"flag": 1}, "here: flag: expected bool, got 1"),
        ({"free": [1]}, "here: free: expected dict"),
    ],
)
def test_mistakes_are_named(change, message):
    assert message in refused({"count": 1, "inner": {"radius": 1}} | change)


def test_what_is_missing_is_named():
    assert refused({}).endswith("missing 'count', 'inner'")


@pytest.mark.parametrize("values", [None, [], 3, "text"])
def test_a_table_is_expected(values):
    assert "expected a table" in refused(values)


def test_toml_that_is_none():
    assert parse_toml("a = 1\n[b]\nc = [2]", "here") == {"a": 1, "b": {"c": [2]}}
    with pytest.raises(InputError, match=r"here is not valid TOML: .*line 2"):
        parse_toml("a = 1\nb = ]\nc = 2", "here")


# --- a field that is called otherwise in files


@dataclass(frozen=True)
class Renamed:
    kept: int = field(default=0, metadata={"key": "k"})
    inner: Inner | None = None


@dataclass(frozen=True)
class Either:
    part: Inner | Renamed


@dataclass(frozen=True)
class Holder:
    parts: tuple[Renamed, ...] = ()
    table: dict[str, Renamed] = field(default_factory=dict)
    either: Inner | Renamed | None = None


def test_the_key_of_files_is_written_and_both_are_read():
    held = Holder((Renamed(3, Inner(1.5)),), {"a": Renamed(4)}, Renamed(5))
    written = plain(held)
    assert written == {
        "parts": ({"k": 3, "inner": {"radius": 1.5, "name": "ball"}},),
        "table": {"a": {"k": 4, "inner": None}},
        "either": {"k": 5, "inner": None},
    }
    assert build(Holder, written, "here") == held
    assert build(Renamed, {"kept": 3}, "here") == build(Renamed, {"k": 3}, "here") == Renamed(3)
    assert "here: 'k' and 'kept' are one setting" in refused({"k": 1, "kept": 1}, Renamed)
    assert "did you mean 'kept'?" in refused({"kep": 1}, Renamed)
    assert "here: kept: expected int, got 'x'" in refused({"k": "x"}, Renamed)


def test_a_manifest_calls_padding_as_it_always_did():
    spec = InferenceSpec(pad_to_window=True)
    others = {"window": (128, 128, 128), "overlap": 0.5, "bf16": True, "nested": (), "coarser": ()}
    assert plain(spec) == {"fixed": True, **others}
    assert list(plain(spec)) == ["fixed" if name == "pad_to_window" else name for name in asdict(spec)]
    for key in ("fixed", "pad_to_window"):
        assert build(InferenceSpec, {key: True}, "here").pad_to_window


def test_what_replaces_a_setting_may_call_it_by_either_word():
    """Whichever word stands there already: a package has the key of files, a configuration mostly the name."""
    holder = plain(Holder(either=Renamed(1))) | {"parts": [{"k": 1}]}
    for word, value in (("kept", 3), ("k", 4)):
        for place in ("parts.0", "either"):
            override(Holder, holder, f"{place}.{word}={value}")
        over = {"either": {word: value + 2}, "table": {"kept": {"k": value}}}
        merged = merge(Holder, {**holder, "table": {"k": {"k": 1}}}, over)
        assert build(Holder, holder, "here").parts == (Renamed(value),)
        assert build(Holder, holder, "here").either == Renamed(value)
        assert build(Holder, merged, "here").either == Renamed(value + 2)
        # of a table of one's own words none is taken for another
        assert build(Holder, merged, "here").table == {"k": Renamed(1), "kept": Renamed(value)}


# --- overrides


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("count=3", {"count": 3}),
        ("rate=1e-3", {"rate": 1e-3}),
        ("flag=true", {"flag": True}),
        ("name=plain", {"name": "plain"}),
        ("name='quoted'", {"name": "quoted"}),
        ("path=../data/a=b", {"path": "../data/a=b"}),
        ("sides=[1, 2]", {"sides": [1, 2]}),
        ("inner.radius=2", {"inner": {"radius": 2, "name": "x"}}),
        ("fresh.deep.er=1", {"fresh": {"deep": {"er": 1}}}),
        ("many.1.radius=5", {"many": [{"radius": 1}, {"radius": 5}]}),
        ("pair.0=9", {"pair": [9, 2]}),
        (" count =4", {"count": 4}),
        ("name=", {"name": ""}),
    ],
)
def test_overrides(text, expected):
    values = {"inner": {"radius": 1, "name": "x"}, "many": [{"radius": 1}, {"radius": 2}], "pair": [1, 2]}
    override(Outer, values, text)
    assert {key: values[key] for key in expected} == expected


@pytest.mark.parametrize(
    "text",
    ["count", "many.2.radius=1", "many.first.radius=1", "many.radius=1", "steps.deep=1", "name.a.b=1", "pair.2=1"],
)
def test_overrides_that_lead_nowhere(text):
    values = {"many": [{"radius": 1}, {"radius": 2}], "steps": 3, "name": "text", "pair": [1, 2]}
    with pytest.raises(InputError, match=f"--set {text}"):
        override(Outer, values, text)


def test_null_is_refused_where_one_of_several_kinds_must_be():
    assert "here: part: expected a table of settings, got None" in refused({"part": None}, Either)


def test_a_file_that_holds_null_is_not_one_that_is_missing(tmp_path):
    path = tmp_path / "plan.json"
    assert read_json(path, optional=True) is None
    path.write_text("null")
    with pytest.raises(InputError, match=r"plan\.json holds null"):
        read_json(path, optional=True)
