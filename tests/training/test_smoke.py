"""A few steps of the whole pipeline at a small size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from training.config import HERE, Config
from training.export import load_model, main, read_weights, write_weights
from training.figures import click_and_box, large_objects, predictor_of
from training.train import parse, run
from training.trainer import Trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*NumPy array is not writable.*:UserWarning"),
]


def train(pictures: Path, out: Path, config: Config, *more: str) -> Trainer:
    common = ["--data", str(pictures), "--out", str(out), "--steps", "4", "--log-every", "1", "--device", "cpu"]
    return run(parse([*common, "--no-compile", *more]), config)


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory, tiny: Config) -> tuple[Trainer, Path]:
    out = tmp_path_factory.mktemp("whole")
    return train(pictures, out, tiny), out


def test_a_run_that_was_stopped_goes_on_exactly_as_if_it_had_not(
    whole: tuple[Trainer, Path], pictures: Path, tmp_path: Path, tiny: Config
) -> None:
    train(pictures, tmp_path, tiny, "--until", "0.5")
    resumed = train(pictures, tmp_path, tiny, "--resume")
    assert resumed.step == whole[0].step == 4
    for name, value in whole[0].averaged().items():
        assert torch.equal(value, resumed.averaged()[name]), name


def test_training_moves_every_part_that_is_not_frozen(
    whole: tuple[Trainer, Path], pictures: Path, tmp_path: Path, tiny: Config
) -> None:
    from dataclasses import replace

    frozen = replace(tiny, frozen=("image_encoder", "no_mem_embed"))
    before = Trainer(frozen, torch.device("cpu")).averaged()
    after = train(pictures, tmp_path, frozen).averaged()
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"sam_mask_decoder", "sam_prompt_encoder"}
    moved = {name.split(".")[0] for name, value in whole[0].averaged().items() if not torch.equal(value, before[name])}
    assert moved == {"sam_mask_decoder", "sam_prompt_encoder", "image_encoder", "no_mem_embed"}


def test_the_export_loads_strictly_and_predicts(whole: tuple[Trainer, Path], tiny: Config) -> None:
    model = load_model(whole[1] / "weights.pt", HERE / tiny.architecture, image_size=128)
    predictor = predictor_of(model)
    predictor.set_image(np.full((64, 80, 3), 90, np.uint8))
    masks, scores, _ = predictor.predict(np.array([[40.0, 30.0]]), np.array([1]), multimask_output=True)
    assert masks.shape == (3, 64, 80)
    assert np.isfinite(scores).all()
    assert (whole[1] / "weights.pt").stat().st_size < 20e6


def test_scaling_the_logits_leaves_the_masks_alone(whole: tuple[Trainer, Path], tmp_path: Path, tiny: Config) -> None:
    from training.decoder import decode, encode

    write_weights(whole[0].averaged(), tmp_path / "steeper.pt", logit_scale=2.0)
    images = torch.randn(1, 3, 128, 128, generator=torch.manual_seed(0))
    out = []
    for path in (whole[1] / "weights.pt", tmp_path / "steeper.pt"):
        model = load_model(path, HERE / tiny.architecture, image_size=128)
        with torch.no_grad():
            out.append(decode(model, *encode(model, images), torch.tensor([[[60.0, 60.0]]]), torch.ones(1, 1)).masks)
    torch.testing.assert_close(out[1], 2 * out[0], rtol=1e-2, atol=1e-2)


def test_the_evaluation_runs(whole: tuple[Trainer, Path], pictures: Path, tiny: Config) -> None:
    from training.pictures import read_pairs

    model = load_model(whole[1] / "weights.pt", HERE / tiny.architecture, image_size=128)
    table = click_and_box(model, read_pairs(pictures)[:2], most=4)
    assert set(table) == {"one"}
    assert 0 <= table["one"]["click"] <= table["one"]["best of 3"] <= 1
    assert 0 <= large_objects(model, scenes=3)["window edges"] <= 1


def test_the_command_line_exports_the_mean_of_two_checkpoints(whole: tuple[Trainer, Path], tmp_path: Path) -> None:
    given = whole[1] / "weights.pt"
    write_weights({name: value * 3 for name, value in read_weights(given).items()}, tmp_path / "three.pt")
    main([str(given), str(tmp_path / "two.pt"), "--average-with", str(tmp_path / "three.pt")])
    once, twice = read_weights(given), read_weights(tmp_path / "two.pt")
    for name, value in once.items():
        torch.testing.assert_close(twice[name], 2 * value, rtol=1e-2, atol=1e-3)
