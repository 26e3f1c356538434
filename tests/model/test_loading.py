from __future__ import annotations

import builtins
import os
import pickle
import random
import warnings
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
import torch

from random_networks import random_network
from sam2_fewshot.backbones.sam2.checkpoints import EMBEDDED_FOLDER, MICRO, TINY, Checkpoint, LocalCheckpoint, resolve
from sam2_fewshot.backbones.sam2.loading import (
    build,
    fitting_config,
    load_network,
    read_weights,
    sam2_distribution,
)
from sam2_fewshot.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MICRO_FILE = EMBEDDED_FOLDER / MICRO.name

SMALL_CONFIG = """
model:
  _target_: sam2.modeling.sam2_base.SAM2Base
  image_encoder:
    _target_: sam2.modeling.backbones.image_encoder.ImageEncoder
    scalp: 1
    trunk:
      _target_: sam2.modeling.backbones.hieradet.Hiera
      embed_dim: 8
      num_heads: 1
      stages: [1, 1, 2, 1]
      global_att_blocks: [3]
      window_pos_embed_bkg_spatial_size: [7, 7]
      window_spec: [8, 4, 8, 8]
    neck:
      _target_: sam2.modeling.backbones.image_encoder.FpnNeck
      position_encoding:
        _target_: sam2.modeling.position_encoding.PositionEmbeddingSine
        num_pos_feats: 32
      d_model: 32
      backbone_channel_list: [64, 32, 16, 8]
      fpn_top_down_levels: [2, 3]
      fpn_interp_model: nearest
  memory_attention:
    _target_: torch.nn.Identity
  memory_encoder:
    _target_: torch.nn.Identity
  num_maskmem: 1
  image_size: 256
  compile_image_encoder: False
"""

FOR_VIDEOS = {
    "mask_downsample",
    "maskmem_tpos_enc",
    "memory_attention",
    "memory_encoder",
    "no_mem_pos_enc",
    "no_obj_embed_spatial",
    "no_obj_ptr",
    "obj_ptr_proj",
    "obj_ptr_tpos_proj",
}
"""Parts of Meta's networks that images have no use for."""


@pytest.fixture(scope="module")
def tiny() -> torch.nn.Module:
    return random_network("tiny", seed=3)


@pytest.fixture(scope="module")
def tiny_file(tiny: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Random weights of Meta's tiny configuration under Meta's file name, in half precision."""
    path = tmp_path_factory.mktemp("meta") / TINY.name
    torch.save({"model": {name: value.half() for name, value in tiny.state_dict().items()}}, path)
    yield path
    path.unlink()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A checkpoint of a small model of one's own, with its configuration beside it."""
    config = tmp_path / "own.yaml"
    config.write_text(SMALL_CONFIG)
    torch.save({"model": build(str(config)).state_dict()}, tmp_path / "own.pt")
    return tmp_path / "own.pt"


def refusal(path: Path) -> str:
    config = path.with_suffix(".yaml")
    checkpoint = Checkpoint(path.name, str(config) if config.is_file() else None)
    with pytest.raises(CheckpointError) as caught:
        load_network(LocalCheckpoint(path, checkpoint))
    sentence = str(caught.value)
    assert str(path) in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_the_embedded_checkpoint_loads_for_inference() -> None:
    network = load_network(resolve("micro"))
    parameters = list(network.parameters())
    assert not network.training
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    assert {parameter.device.type for parameter in parameters} == {"cpu"}
    assert not any(parameter.requires_grad for parameter in parameters)
    size = network.image_size
    assert f"image_size: {size}" in MICRO_FILE.with_suffix(".yaml").read_text()
    with torch.no_grad():
        features = network.forward_image(torch.zeros(1, 3, size, size))["backbone_fpn"]  # type: ignore[operator]
    assert features[-1].shape[2:] == (size // 16, size // 16)


def test_half_precision_is_widened_without_change() -> None:
    given = read_weights(MICRO_FILE)
    state = load_network(resolve("micro")).state_dict()
    assert all(torch.equal(value, given[name].float()) for name, value in state.items())


def test_a_file_of_metas_loads_by_its_name(tiny_file: Path, tiny: torch.nn.Module) -> None:
    network = load_network(resolve(tiny_file))
    assert network.image_size == 1024
    loaded = network.state_dict()
    assert {name.split(".")[0] for name in tiny.state_dict().keys() - loaded.keys()} == FOR_VIDEOS
    name = "sam_mask_decoder.output_upscaling.0.weight"
    assert torch.equal(loaded[name], tiny.state_dict()[name].half().float())


def test_a_renamed_file_finds_its_configuration_by_its_weights(tiny_file: Path) -> None:
    renamed = tiny_file.with_name("renamed.pt")
    renamed.hardlink_to(tiny_file)
    found = resolve(renamed)
    assert found.checkpoint.config is None
    assert load_network(found).image_size == 1024


@pytest.mark.parametrize(
    ("config", "same"),
    [("configs/sam2.1/sam2.1_hiera_t.yaml", TINY.config), ("configs/sam2/sam2_hiera_t.yaml",) * 2],
)
def test_weights_of_either_generation_are_told_apart(config: str, same: str) -> None:
    assert fitting_config(build(config).state_dict()) == same


def test_the_network_is_the_one_of_the_public_builder(tiny: torch.nn.Module) -> None:
    from sam2.build_sam import build_sam2

    public = build_sam2(TINY.config, device="cpu", apply_postprocessing=False)
    public.load_state_dict(tiny.state_dict())
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = tiny.forward_image(image)["backbone_fpn"][-1]  # type: ignore[operator]
        assert torch.equal(ours, public.forward_image(image)["backbone_fpn"][-1])
    settings = ("image_size", "directly_add_no_mem_embed", "use_high_res_features_in_sam", "sigmoid_scale_for_mem_enc")
    assert [getattr(tiny, name) for name in settings] == [getattr(public, name) for name in settings]
    assert not tiny.sam_mask_decoder.dynamic_multimask_via_stability  # type: ignore[union-attr]


def test_random_networks_follow_their_seed_and_leave_the_dice_alone() -> None:
    before = torch.random.get_rng_state()
    first, same, other = (random_network("micro", seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    name = "image_encoder.trunk.patch_embed.proj.weight"
    assert torch.equal(first[name], same[name])
    assert not torch.equal(first[name], other[name])


def test_loading_leaves_the_dice_alone(own: Path) -> None:
    before = torch.random.get_rng_state()
    load_network(resolve(own))
    assert torch.equal(before, torch.random.get_rng_state())


def test_weights_for_videos_may_be_missing_or_others(own: Path) -> None:
    weights = read_weights(own)
    for_videos = [name for name in weights if name in {"maskmem_tpos_enc", "no_mem_pos_enc", "no_obj_ptr"}]
    assert for_videos
    kept = load_network(resolve(own)).state_dict()
    changed = {name: value for name, value in weights.items() if name not in for_videos}
    torch.save({"model": {**changed, "memory_attention.norm.weight": torch.ones(3), "ema.decay": torch.ones(1)}}, own)
    loaded = load_network(resolve(own)).state_dict()
    assert loaded.keys() == kept.keys() == changed.keys()
    assert all(torch.equal(loaded[name], kept[name]) for name in kept)


@pytest.mark.parametrize("wrap", [None, "model", "state_dict"])
def test_a_bare_state_dict_and_usual_wrappings_are_accepted(wrap: str | None, tmp_path: Path) -> None:
    weights = {"a": torch.ones(2), "n": torch.tensor(3)}
    path = tmp_path / "weights.pt"
    torch.save({wrap: weights, "epoch": 7} if wrap else weights, path)
    assert read_weights(path).keys() == weights.keys()


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_the_names_that_wrappers_for_training_give_are_understood(wrapper: str, own: Path) -> None:
    weights = read_weights(own)
    torch.save({"model": {wrapper + name: value for name, value in weights.items()}}, own)
    assert read_weights(own).keys() == weights.keys()
    assert load_network(resolve(own)).image_size == 256


def test_a_name_that_only_some_weights_have_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "some.pt"
    torch.save({"module.a": torch.ones(2), "b": torch.ones(2)}, path)
    assert read_weights(path).keys() == {"module.a", "b"}


def test_an_old_style_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"model": {"a": torch.ones(2)}}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_weights(path)["a"], torch.ones(2))


# --- files that are no checkpoints ------------------------------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    assert "There is no checkpoint" in refusal(tmp_path / "none.pt")


def test_a_folder(tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in refusal(tmp_path)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.pt"
    path.touch()
    assert "is empty; download it again" in refusal(path)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_truncated_file(share: float, own: Path) -> None:
    content = own.read_bytes()
    path = own.with_name("short.pt")
    path.write_bytes(content[: int(len(content) * share)])
    assert f"damaged or cut short ({path.stat().st_size:,} bytes)" in refusal(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"hello, this is a text", "not a checkpoint that PyTorch can read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a checkpoint that PyTorch can read"),
        (b"\n<!DOCTYPE html><html></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"PK\x03\x04 no archive at all", "damaged or cut short"),
    ],
)
def test_other_kinds_of_files(content: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    assert sentence in refusal(path)


def test_noise_never_ends_in_another_error(tmp_path: Path) -> None:
    path = tmp_path / "noise.pt"
    dice = random.Random(5)
    for first in range(256):
        path.write_bytes(bytes([first]) + dice.randbytes(40))
        refusal(path)


class Trap:
    """What runs code when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return builtins.exec, (f"open({str(self.target)!r}, 'w').close()",)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "trap.pt", tmp_path / "trace"
    torch.save({"model": {"a": torch.ones(1), "b": Trap(trace)}}, path)
    assert "exec) besides weights. It was not run" in refusal(path)
    for protocol in (0, 2):
        path.write_bytes(pickle.dumps(Trap(trace), protocol=protocol))
        assert "holds Python code" in refusal(path)
    path.write_bytes(pickle.dumps(Trap(trace)))
    assert "None was run" in refusal(path)
    assert not trace.exists()


def test_a_pickled_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "whole.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "torch.nn.modules.linear.Linear" in refusal(path)


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out, but its files are about
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)
    refusal(path)


@pytest.mark.parametrize("content", [{"epoch": 3}, {"model": 5}, {"model": {}}, [1, 2], {1: torch.ones(1)}, "text"])
def test_a_file_without_weights(content: object, tmp_path: Path) -> None:
    path = tmp_path / "no_weights.pt"
    torch.save(content, path)
    assert "holds no weights" in refusal(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers(value: float, own: Path) -> None:
    weights = read_weights(own)
    name = "image_encoder.trunk.patch_embed.proj.weight"
    weights[name][0, 0, 0, 0] = value
    torch.save(weights, own)
    assert f"its weight {name} holds NaN or Inf" in refusal(own)


# --- weights that do not fit ------------------------------------------------------------------------------------


def test_a_misfit_is_counted_and_shown(own: Path) -> None:
    weights = read_weights(own)
    first, second = (name for name in list(weights) if name.startswith("image_encoder.trunk.pos_embed"))

    def sentence(changed: dict[str, torch.Tensor]) -> str:
        torch.save({"model": changed}, own)
        return refusal(own)

    value = weights.pop(first)
    assert f"1 are missing, 0 have another shape, and 0 more are unexpected; for instance, {first} is missing" in (
        sentence(weights)
    )
    weights[first] = value
    further = "sam_mask_decoder.extra"
    assert f"{further} has no place in it" in sentence({**weights, further: torch.ones(1)})
    misshapen = sentence({**weights, second: torch.ones(2, 3)})
    assert f"1 have another shape, and 0 more are unexpected; for instance, {second} is 2 x 3 instead of " in misshapen
    assert "a single number" in sentence({**weights, second: torch.tensor(1.0)})


def test_foreign_weights_of_unknown_make(tmp_path: Path) -> None:
    path = tmp_path / "foreign.pt"
    for weights in ({"a": torch.ones(1)}, {"image_encoder.trunk.patch_embed.proj.weight": torch.tensor(1.0)}):
        torch.save(weights, path)
        with pytest.raises(CheckpointError, match=r"fits none of the known SAM 2 models.*foreign\.yaml"):
            load_network(resolve(path))


# --- configurations ---------------------------------------------------------------------------------------------


def config_refusal(text: str, own: Path) -> str:
    own.with_suffix(".yaml").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        load_network(resolve(own))
    return str(caught.value)


def test_a_configuration_cannot_run_code(own: Path, tmp_path: Path) -> None:
    harmless = "memory_attention:\n    _target_: torch.nn.Identity"
    for target in ("os.mkdir", "sam2.build_sam.os.mkdir", "sam2.modeling.sam2_base.torch.load"):
        trap = f"memory_attention:\n    _target_: {target}\n    _args_: ['{tmp_path}/made']"
        assert harmless in SMALL_CONFIG
        sentence = config_refusal(SMALL_CONFIG.replace(harmless, trap), own)
        assert f"asks for {target}, which is no part of SAM 2" in sentence
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("text", ["", "model: 3", "a: [", "- 1", "model: {_target_: torch.nn.Identity}", "m: ${gone}"])
def test_a_yaml_file_that_is_no_configuration(text: str, own: Path) -> None:
    assert str(own.with_suffix(".yaml")) in config_refusal(text, own)


def test_the_configuration_of_a_training_is_told(own: Path) -> None:
    trainer = "scratch: {size: 1024}\ntrainer:\n  model: {_target_: training.model.sam2.SAM2Train, x: '${gone.by}'}\n"
    sentence = config_refusal(trainer, own)
    assert "describes no SAM 2 model" in sentence
    assert "that of a training, move it away" in sentence


def test_what_a_configuration_has_besides_the_model_is_not_read(own: Path) -> None:
    text = SMALL_CONFIG.replace("image_size: 256", "image_size: ${side}") + "side: 256\nother: ${env_of_a_trainer:x}\n"
    own.with_suffix(".yaml").write_text(text)
    assert load_network(resolve(own)).image_size == 256


def test_a_configuration_with_a_wrong_parameter(own: Path) -> None:
    assert "cannot be built" in config_refusal(SMALL_CONFIG.replace("embed_dim:", "embedded_dim:"), own)
    assert "cannot be built" in config_refusal(SMALL_CONFIG.replace("[1, 1, 2, 1]", "[1, 1]"), own)
    assert "does not fit" in config_refusal(SMALL_CONFIG.replace("[1, 1, 2, 1]", "[1, 1, 3, 1]"), own)


def test_a_configuration_that_is_no_text(own: Path) -> None:
    own.with_suffix(".yaml").write_bytes(b"\xff\xfe\x00")
    torch.save({"a": torch.ones(1)}, own)
    with pytest.raises(CheckpointError, match="is no YAML file"):
        load_network(resolve(own))


def test_compilation_in_a_configuration_is_ignored(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own.with_suffix(".yaml").write_text(SMALL_CONFIG.replace("encoder: False", "encoder: True"))
    assert load_network(resolve(own)).image_size == 256
    assert capsys.readouterr() == ("", "")


def test_an_unknown_network(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        build("huge")
    with pytest.raises(CheckpointError, match=r"configs/none\.yaml cannot be read"):
        build("configs/none.yaml")
    missing = Checkpoint("own.pt", str(tmp_path / "gone.yaml"))
    with pytest.raises(CheckpointError, match=r"gone\.yaml cannot be read"):
        load_network(LocalCheckpoint(MICRO_FILE, missing))


def test_the_supplier_of_sam2_is_recorded() -> None:
    name, version = sam2_distribution().split(" ")
    assert name in {"rf-sam-2", "sam2"}
    assert version[0].isdigit()


def test_any_supplier_of_sam2_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    known = metadata.version

    def version(name: str) -> str:
        if name in {"rf-sam-2", "sam2"}:
            raise metadata.PackageNotFoundError(name)
        return "2.0" if name == "Other-SAM" else known(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"sam2": ["Other-SAM", "Other-SAM"]})
    assert sam2_distribution() == "other-sam 2.0"
    monkeypatch.setattr(metadata, "packages_distributions", dict)
    assert sam2_distribution() == "unknown"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "locked.pt"
    path.write_bytes(b"x")
    path.chmod(0)
    assert "Permission denied" in refusal(path)


def test_a_program_may_use_hydra_for_itself_around_loading(tmp_path: Path) -> None:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    state = GlobalHydra.get_state()
    (tmp_path / "own.yaml").write_text("a: 1\n")
    try:
        GlobalHydra.instance().clear()
        build(MICRO.config or "")
        with hydra.initialize_config_dir(str(tmp_path), version_base=None):
            build(MICRO.config or "")
            assert hydra.compose("own").a == 1
    finally:
        GlobalHydra.set_state(state)
