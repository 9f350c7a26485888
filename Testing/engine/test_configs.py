"""The configurations that come with the project: each can be read, and stands for what its name says."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from segmamba import settings
from segmamba.errors import InputError
from segmamba.models.package import read_manifest
from segmamba.networks.choice import NetworkChoice
from segmamba.training import recipes
from segmamba.training.config import load_config, resolved
from segmamba.training.run_folder import changed_settings

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "Training" / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_ready_configuration_can_be_read(path):
    config = load_config(path)
    assert config.name == path.stem
    config.network.resolve(4, 4, config.patch)
    assert all(Path(source.dataset).is_absolute() for source in config.sources)


def test_the_ready_configurations_are_those_promised():
    names = {path.stem for path in CONFIGS}
    assert names >= {"paper", "released", "segmamba", "quick", "finetune", "segresnet", "uxnet", "mednext", "unetr"}
    assert names >= {"swinunetr", "swinunetr-v2", "nnformer"}


def test_a_network_that_bf16_changes_is_trained_and_run_in_fp32():
    """By its own configuration, and as a row of table 1 of one in bf16, which takes its run for one of the same."""
    configs = {path.stem: load_config(path) for path in CONFIGS}
    own, paper = configs["umamba-enc"], configs["paper"]
    assert (own.precision, own.inference.bf16) == ("fp32", False)
    assert (paper.precision, paper.inference.bf16) == ("bf16", True)
    assert replace(paper, name=own.name, network=own.network) == own
    assert replace(paper, network=configs["umamba-bot"].network).precision == "bf16"


SHIPPED = Path(__file__).resolve().parents[2] / "Resources" / "models" / "quick"


def test_what_retrains_and_fine_tunes_makes_models_like_the_one_that_ships():
    """Its network, grid, window, patch and head: a candidate is compared with it, and takes its place."""
    shipped = recipes._like(read_manifest(SHIPPED))
    preset, shipped["patch"] = shipped.pop("network")["preset"], tuple(shipped["patch"])
    for name in ("retrain", "finetune", "quick"):
        config = next(load_config(path) for path in CONFIGS if path.stem == name)
        own = {key: settings.plain(getattr(config, key)) for key in shipped}
        assert config.network.preset == preset, name
        assert own == {key: settings.plain(value) for key, value in shipped.items()}, name


def test_what_the_comments_of_the_two_ways_to_a_candidate_claim():
    configs = {path.stem: load_config(path) for path in CONFIGS}
    again, tuned, quick, phantoms = (configs[name] for name in ("retrain", "finetune", "quick", "quick-phantoms"))
    learnt = read_manifest(SHIPPED).training["config"]
    assert (again.initial_model, phantoms.initial_model) == ("", "")
    assert again.augment.modality_dropout == learnt["augment"]["modality_dropout"] and learnt["foreground"] == 0.6
    as_learnt = [learnt["optimizer"][key] for key in ("name", "learning_rate", "weight_decay")]
    for config in (quick, again):
        found = config.optimizer
        assert [found.name, found.learning_rate, found.weight_decay] == as_learnt == ["muon", 2e-3, 1e-2]
    assert Path(tuned.initial_model).resolve() == SHIPPED and tuned.validation.at_start
    assert (tuned.optimizer.name, tuned.optimizer.weight_decay) == ("adamw", phantoms.optimizer.weight_decay)
    assert {again.validation.release, tuned.validation.release} == {"last"}


def test_a_base_gives_what_a_file_leaves_out():
    configs = {path.stem: load_config(path) for path in CONFIGS}
    paper, released = configs["paper"], configs["released"]
    assert released.optimizer.weight_decay == 3e-5 and paper.optimizer.weight_decay == 1e-5
    assert released.optimizer.learning_rate == paper.optimizer.learning_rate == 1e-2
    assert released.augment.set == "released" and released.loss == "ce"


@pytest.mark.parametrize(("old", "new"), [("fixed", "pad_to_window"), ("pad_to_window", "fixed")])
def test_padding_goes_by_its_old_word_and_its_new_one(tmp_path, old, new):
    """In a base and in what stands on it, in a file and on the command line."""
    (tmp_path / "base.toml").write_text(f"{MINIMAL}[inference]\n{old} = true\n")
    (tmp_path / "on.toml").write_text(f'base = "base.toml"\n[inference]\n{new} = false\n')
    assert load_config(tmp_path / "base.toml").inference.pad_to_window
    assert not load_config(tmp_path / "on.toml").inference.pad_to_window
    for file in ("base.toml", "on.toml"):
        for word in (old, new):
            for value in ("true", "false"):
                config = load_config(tmp_path / file, [f"inference.{word}={value}"])
                assert config.inference.pad_to_window == (value == "true")
    (tmp_path / "twice.toml").write_text(f'base = "base.toml"\n[inference]\n{old} = true\n{new} = false\n')
    with pytest.raises(InputError, match="are one setting; give it once"):
        load_config(tmp_path / "twice.toml")


def test_a_circle_of_bases_is_named(tmp_path):
    (tmp_path / "a.toml").write_text('base = "b.toml"\n')
    (tmp_path / "b.toml").write_text('base = "a.toml"\n')
    with pytest.raises(InputError, match=r"a\.toml is its own base, by way of .*b\.toml"):
        load_config(tmp_path / "a.toml")


def test_a_misspelt_setting_is_met_with_the_right_one(tmp_path):
    (tmp_path / "a.toml").write_text('name = "a"\n[optimizer]\nlearning_rat = 1.0\n[[sources]]\ndataset = "d"\n')
    with pytest.raises(InputError, match=r"optimizer: unknown setting 'learning_rat'; did you mean 'learning_rate'"):
        load_config(tmp_path / "a.toml")
    with pytest.raises(InputError, match="unknown setting 'stepss'; did you mean 'steps'"):
        load_config(CONFIGS[0], ["stepss=3"])


def test_a_set_on_the_command_line_wins():
    path = next(path for path in CONFIGS if path.stem == "released")
    config = load_config(path, ["optimizer.learning_rate=1e-4", "sources.0.fold=2", "network.preset=v1"])
    assert (config.optimizer.learning_rate, config.sources[0].fold, config.network.preset) == (1e-4, 2, "v1")


MINIMAL = 'name = "a"\n[[sources]]\ndataset = "cases"\n'


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("name = ", [], r"config.toml is not valid TOML"),
        ("", [], r"config.toml: missing 'name', 'sources'"),
        (MINIMAL, ["stesp=3"], r"config.toml: unknown setting 'stesp'; did you mean 'steps'"),
        (MINIMAL, ["sources.0.fodl=3"], r"sources\[0\]: unknown setting 'fodl'; did you mean 'fold'"),
        (MINIMAL, ["sources.0.fold=1"], r"a fold needs validate = true"),
        (MINIMAL, ["steps=many"], r"steps: expected int, got 'many'"),
        (MINIMAL, ["precision=fp16"], r"precision 'fp16' must be one of bf16, fp32"),
        (MINIMAL, ["patch=[64, 64]"], r"patch: expected 3 values"),
        (MINIMAL, ["patch=[64, 60, 64]"], r"patch .* multiples of 16"),
        (MINIMAL, ["patch=[0, 64, 64]"], r"patch .* sides of 1 or more"),
        (MINIMAL, ["patch=[16, 16, 16]"], r"32 or more"),
        (MINIMAL, ["sources=[]"], r"at least one \[\[sources\]\]"),
        (MINIMAL, ["sources=5"], r"sources: expected a list, got 5"),
        (MINIMAL, ["sources=[5]"], r"sources\[0\]: expected a table"),
        (MINIMAL, ["sources.0.dataset=5"], r"dataset: expected str, got 5"),
        (MINIMAL, ["seed=-1"], r"seed -1 must be 0 or more"),
        (MINIMAL, ["name="], r"name '' must not be empty"),
        (MINIMAL, ["initial_model=5"], r"initial_model: expected str, got 5"),
        (MINIMAL, ["base=5"], r"unknown setting 'base'"),
        ("base = 5\n" + MINIMAL, [], r"base 5 must be the name of a file"),
        (MINIMAL, ["sources.0.share=0"], r"share must be above 0"),
        (MINIMAL, ["network.preset=realised"], r"unknown network preset 'realised'"),
        (MINIMAL, ["network.depths=[2, 2, 2]"], r"network: depths: expected 4 values"),
        (MINIMAL, ['network.directions=["forwards"]'], r"directions .* must be some of"),
        (MINIMAL, ["network.form=second"], r"unknown network form 'second'"),
        (MINIMAL, ["network.name=unetr", "network.bottleneck=64"], r"network.bottleneck is for SegMamba"),
        (MINIMAL, ["network.width=8"], r"network.width is for baselines"),
        (MINIMAL, ["network.name=segresnet", "network.width=12"], r"width 12 of segresnet must be"),
        (MINIMAL, ["network.name=vnet"], r"network.name 'vnet' must be one of segmamba, segresnet"),
        (MINIMAL, ["batch=0"], r"batch 0 must be 1 or more"),
    ],
)
def test_configurations_with_a_mistake(tmp_path, text, overrides, message):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_config(tmp_path / "config.toml", overrides)


def test_an_ablation_is_a_preset_with_single_settings_replaced(tmp_path):
    (tmp_path / "config.toml").write_text(
        MINIMAL
        + """
[network]
preset = "released"
features = [8, 16, 24, 32]
depths = [1, 2, 1, 1]
directions = ["forward", "slices"]
mamba_residual = false
"""
    )
    config = load_config(tmp_path / "config.toml", ["network.bottleneck=40"])
    network = config.network.resolve(3, 2, (64, 64, 64))
    assert (network.in_channels, network.out_channels, network.form) == (3, 2, "released")
    assert (network.features, network.depths) == ((8, 16, 24, 32), (1, 2, 1, 1))
    assert (network.full_features, network.bottleneck) == (48, 40)
    assert network.directions == ("forward", "slices") and not network.mamba_residual
    record = resolved(config)["network"]
    assert record["bottleneck"] == 40 and "form" not in record and "full_features" not in record


def test_a_baseline_can_be_asked_for_in_another_width(tmp_path):
    (tmp_path / "config.toml").write_text(MINIMAL)
    asked = ["network.name=nnunet", "network.width=10"]
    network = load_config(tmp_path / "config.toml", asked).network.resolve(3, 2, (64, 64, 64))
    assert (network.name, network.width, network.in_channels, network.out_channels) == ("nnunet", 10, 3, 2)
    assert "width" not in resolved(load_config(tmp_path / "config.toml"))["network"]


def test_a_model_of_a_baseline_in_another_width_goes_on_as_that():
    asked = NetworkChoice(name="nnunet", width=10)
    network = asked.resolve(3, 2, (64, 64, 64))
    assert recipes._choice(SimpleNamespace(network=network), (64, 64, 64)).resolve(3, 2, (64, 64, 64)) == network


def test_what_a_source_does_not_name_is_not_recorded_and_no_change(tmp_path):
    """As in records from before a source could be packed, and those that hold it as an empty text."""
    (tmp_path / "config.toml").write_text(MINIMAL)
    record = resolved(load_config(tmp_path / "config.toml"))
    (source,) = record["sources"]
    assert source["dataset"] == "cases" and not {"patches", "packed"} & set(source)
    empty = {**record, "sources": [{**source, "patches": "", "packed": ""}]}
    other = {**record, "sources": [{**source, "dataset": "", "packed": "cases"}]}
    assert changed_settings({"config": empty}, {"config": record}) == {}
    assert changed_settings({"config": other}, {"config": record}) == {
        "sources.0.dataset": None,
        "sources.0.packed": "cases",
    }


@pytest.mark.parametrize("switch", ("deep_supervision", "keep_right"))
def test_a_switch_that_another_version_has_and_leaves_off_is_no_other_setting(tmp_path, switch):
    (tmp_path / "config.toml").write_text(MINIMAL)
    record = resolved(load_config(tmp_path / "config.toml"))
    without = {key: value for key, value in record.items() if key != switch}
    for other in (without, {**without, switch: False}):
        assert changed_settings({"config": other}, {"config": record}) == {}
    assert changed_settings({"config": {**without, switch: True}}, {"config": record}) == {switch: True}


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        load_config(tmp_path / "binary.toml")


def test_relative_paths_count_from_the_file(tmp_path):
    (tmp_path / "a.toml").write_text('initial_model = "m"\ncache = "c"\n' + MINIMAL)
    config = load_config(tmp_path / "a.toml")
    assert config.sources[0].dataset == str(tmp_path / "cases")
    assert (config.initial_model, config.cache) == (str(tmp_path / "m"), str(tmp_path / "c"))
