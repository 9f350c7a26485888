"""Settings from TOML and JSON to dataclasses, overrides, and the configurations of trainings."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from segmamba.config import NetworkChoice, SourceConfig, TrainingConfig, load_config
from segmamba.errors import InputError
from segmamba.settings import build, override, parse_toml
from segmamba.training import train

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
    override(values, text)
    assert {key: values[key] for key in expected} == expected


@pytest.mark.parametrize(
    "text",
    ["count", "many.2.radius=1", "many.first.radius=1", "many.radius=1", "steps.deep=1", "name.a.b=1", "pair.2=1"],
)
def test_overrides_that_lead_nowhere(text):
    values = {"many": [{"radius": 1}, {"radius": 2}], "steps": 3, "name": "text", "pair": [1, 2]}
    with pytest.raises(InputError, match=f"--set {text}"):
        override(values, text)


# --- trainings

MINIMAL = 'name = "a"\n[[sources]]\nfolder = "cases"\nconvention = "brats2023"\n'


def write(folder, text):
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_relative_paths_count_from_the_file(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    text = 'initial_model = "../model"\ncache = "cache"\n' + MINIMAL
    text += '[[sources]]\nfolder = "/absolute"\nconvention = "msd"\n'
    path = write(tmp_path / "deep", text)
    monkeypatch.chdir(tmp_path)
    config = load_config(path.relative_to(tmp_path), ["seed=7", "sources.0.folder=other", "sources.1.share=3"])
    assert [Path(source.folder) for source in config.sources] == [tmp_path / "deep" / "other", Path("/absolute")]
    assert Path(config.initial_model).resolve() == tmp_path / "model"
    assert Path(config.cache) == tmp_path / "deep" / "cache"
    assert config.seed == 7 and config.sources[1].share == 3.0


def test_what_is_not_given_has_its_default(tmp_path):
    config = load_config(write(tmp_path, MINIMAL))
    source = SourceConfig(folder=str(tmp_path / "cases"), convention="brats2023")
    assert config == TrainingConfig(name="a", sources=(source,))
    assert config.initial_model == "" and config.network == NetworkChoice()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_configuration_that_is_shipped_loads(path):
    config = load_config(path)
    assert config.name == path.stem
    assert len(config.preprocess.modalities) == config.network.resolve().in_channels
    assert all(Path(source.folder).is_absolute() for source in config.sources)


def test_there_are_configurations():
    assert len(list(CONFIGS.glob("*.toml"))) >= 2


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("name = ", [], r"config.toml is not valid TOML"),
        ("", [], r"config.toml: missing 'name', 'sources'"),
        (MINIMAL, ["stesp=3"], r"config.toml: unknown setting 'stesp'; did you mean 'steps'"),
        (MINIMAL, ["sources.0.fodl=3"], r"sources\[0\]: unknown setting 'fodl'; did you mean 'fold'"),
        (MINIMAL, ["steps=many"], r"steps: expected int, got 'many'"),
        (MINIMAL, ["network.preset=realised", "network.in_channels=x"], r"network: in_channels: expected int"),
        (MINIMAL, ["precision=fp16"], r"precision 'fp16' must be 'bf16' or 'fp32'"),
        (MINIMAL, ["patch=[64, 64]"], r"patch: expected 3 values"),
        (MINIMAL, ["patch=[64, 60, 64]"], r"patch .* multiples of 16"),
        ("patch = [64, 64, 64]\n" + MINIMAL, ["patch.1=24"], r"patch \(64, 24, 64\) .* multiples of 16"),
        (MINIMAL, ["patch=[0, 64, 64]"], r"patch .* multiples of 16"),
        (MINIMAL, ["patch=[-16, 64, 64]"], r"patch .* multiples of 16"),
        (MINIMAL, ["patch=[16, 16, 16]"], r"32 or more"),
        (MINIMAL, ["sources=[]"], r"at least one \[\[sources\]\]"),
        (MINIMAL, ["sources=5"], r"sources: expected a list, got 5"),
        (MINIMAL, ["sources=[5]"], r"sources\[0\]: expected a table"),
        (MINIMAL, ["sources.0.folder=5"], r"folder: expected str, got 5"),
        (MINIMAL, ["initial_model=5"], r"initial_model: expected str, got 5"),
        (MINIMAL, ["sources.0.folds=3", "sources.0.fold=3"], r"fold 3 must be 0..2"),
        (MINIMAL, ["sources.0.share=0"], r"share 0.0 must be above 0"),
        (MINIMAL, ["sources.0.convention=brats"], r"unknown convention 'brats'; known are .*brats2023"),
        (MINIMAL, ["network.preset=realised"], r"unknown network preset 'realised'"),
        (MINIMAL, ["batch=0"], r"batch 0 must be 1 or more"),
        (MINIMAL, ["steps=0"], r"steps 0 must be 1 or more"),
    ],
)
def test_configurations_with_a_mistake(tmp_path, text, overrides, message):
    with pytest.raises(InputError, match=message):
        load_config(write(tmp_path, text), overrides)


def test_single_settings_of_a_preset_are_replaced():
    assert NetworkChoice(preset="quick", out_channels=2).resolve().out_channels == 2


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.toml does not exist"):
        load_config(tmp_path / "nowhere.toml")
    with pytest.raises(InputError, match=r"cannot be read"):
        load_config(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary.toml cannot be read"):
        load_config(tmp_path / "binary.toml")


def test_a_patch_whose_bf16_gradients_would_be_garbage_on_the_cpu(tmp_path):
    config = replace(load_config(write(tmp_path, MINIMAL)), patch=(32, 64, 64))
    with pytest.raises(InputError, match=r"patch \(32, 64, 64\) needs a depth of 48 or more for bf16 on the CPU"):
        train(config, tmp_path / "run")
    with pytest.raises(InputError, match=r"cases is no folder"):  # past that check
        train(replace(config, precision="fp32"), tmp_path / "run")
