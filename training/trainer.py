"""One training step and everything that belongs to it: model, auxiliary head, optimiser, averages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.adapt import open_top_down
from training.config import HERE, Config
from training.decoder import Decoded, decode, encode
from training.export import build, read_weights
from training.losses import contrast_loss, dense_loss, mask_losses, mask_targets
from training.prompts import Prompts, draw_prompts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from training.data import Batch


class DenseHead(nn.Module):
    """Auxiliary head on the three feature maps; it makes the encoder learn fast and is not exported."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width // 8 + width // 4 + width, 64, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(64, 4, 1),
        )

    def forward(self, embed: Tensor, high_res: list[Tensor]) -> Tensor:
        """Predict the dense maps.

        Parameters
        ----------
        embed
            Features of stride 16.
        high_res
            Features of stride 4 and 8.

        Returns
        -------
        Tensor
            (b, 4, size / 4, size / 4).
        """
        fine, middle = high_res
        wide = [fine] + [F.interpolate(x, size=fine.shape[-2:], mode="bilinear") for x in (middle, embed)]
        out: Tensor = self.layers(torch.cat(wide, 1))
        return out


class Trainer:
    """Model, optimiser and averages of one run.

    Parameters
    ----------
    config
        The settings.
    device
        Where to train.
    compiled
        Whether to compile the step (worth it on a GPU: about twice the speed).
    """

    def __init__(self, config: Config, device: torch.device, compiled: bool = False) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device, self.step = config, device, 0
        self.model = build(HERE / config.architecture, config.image_size).to(device)
        self.head = DenseHead(self.model.hidden_dim).to(device)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not name.startswith(config.frozen) if config.frozen else True)
        self.names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        self.own = [p for p in self.model.parameters() if p.requires_grad]
        every = self.own + list(self.head.parameters())
        self.parameters = every
        groups = [
            {"params": [p for p in every if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=device.type == "cuda")
        self.average = [p.detach().clone() for p in self.own]
        self.objective: Callable[..., tuple[Tensor, Tensor]] = self._objective
        if compiled:
            self.objective = torch.compile(self._objective, dynamic=False)

    def start_from(self, path: Path) -> None:
        """Take over all weights whose name and shape fit; the architecture may have changed.

        Parameters
        ----------
        path
            A checkpoint.
        """
        have = self.model.state_dict()
        given = {name: w for name, w in read_weights(path).items() if name in have and w.shape == have[name].shape}
        self.model.load_state_dict(given, strict=False)
        self.average = [p.detach().clone() for p in self.own]

    def open_top_down(self, images: Tensor) -> None:
        """Adapt weights trained without top-down links on the fine levels.

        Parameters
        ----------
        images
            A few normalised pictures.
        """
        open_top_down(self.model, images)
        self.average = [p.detach().clone() for p in self.own]

    def _objective(self, images: Tensor, labels: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
        config = self.config
        b, k = len(images), config.boxes
        clicks = prompts.points.flatten(0, 1)[:, None]
        corners = prompts.boxes.flatten(0, 1)
        one = torch.ones(len(clicks), 1, device=images.device)
        two = torch.tensor([2.0, 3.0], device=images.device).expand(len(corners), 2)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == "cuda"):
            embed, high_res = encode(self.model, images)
            by_click = decode(self.model, embed, high_res, clicks, one)
            by_box = decode(self.model, embed, high_res, corners, two)
        decoded = Decoded(
            *(
                torch.cat([x.unflatten(0, (b, -1)), y.unflatten(0, (b, k))], 1).flatten(0, 1)
                for x, y in zip(by_click, by_box, strict=True)
            )
        )
        single = torch.arange(config.prompts, device=images.device) >= config.prompts - k
        found = mask_losses(decoded, mask_targets(labels, prompts.ids), single.repeat(b))
        found["contrast"] = found["dense"] = images.new_zeros(())
        if config.weight_contrast:
            found["contrast"] = contrast_loss(embed, labels, prompts, config)
        if config.weight_dense:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == "cuda"):
                maps = self.head(embed, high_res)
            found["dense"] = dense_loss(maps.float(), prompts.dense)
        total = torch.stack(
            [
                config.weight_mask * found["mask"],
                config.weight_stability * found["stability"],
                config.weight_iou * found["iou"],
                config.weight_object * found["object"],
                config.weight_contrast * found["contrast"],
                config.weight_dense * found["dense"],
            ]
        ).sum()
        return total, torch.stack([value.detach().float() for value in found.values()])

    def learning_rate(self, progress: float) -> float:
        """Learning rate of the next step: a short warm-up, then a cosine.

        Parameters
        ----------
        progress
            Share of the schedule that is done, 0 to 1.

        Returns
        -------
        float
            The rate.
        """
        config = self.config
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        warm = min(1.0, (self.step + 1) / config.warmup_steps)
        return config.learning_rate * warm * (config.final_share + (1 - config.final_share) * cosine)

    def train_step(self, batch: Batch, progress: float) -> Tensor:
        """Take one step.

        Parameters
        ----------
        batch
            Pictures and masks.
        progress
            Share of the schedule that is done.

        Returns
        -------
        Tensor
            The parts of the loss (`PARTS`).
        """
        with torch.no_grad():
            prompts = draw_prompts(batch.labels, batch.classes, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(progress)
        total, parts = self.objective(batch.images, batch.labels, prompts)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        if self.device.type == "cuda":
            # the fused kernel skips a step whose gradient is not finite, without waiting for the GPU
            self.optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.step += 1
        decay = min(self.config.ema, self.step / (self.step + 10))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.own], 1 - decay)
        return parts

    def averaged(self) -> dict[str, Tensor]:
        """State dict with averaged weights.

        Returns
        -------
        dict
            Loads strictly into the model.
        """
        return {**self.model.state_dict(), **dict(zip(self.names, self.average, strict=True))}

    def state(self) -> dict[str, Any]:
        """Everything that a run needs to go on as if it had not stopped.

        Returns
        -------
        dict
            For `torch.save`.
        """
        return {
            "model": self.model.state_dict(),
            "head": self.head.state_dict(),
            "ema": self.averaged(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`.

        Parameters
        ----------
        state
            What `state` gave.
        """
        self.model.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = [value.to(self.device) for value in state["average"]]
        self.step = int(state["step"])
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"].cpu())


PARTS = ("mask", "stability", "iou", "object", "reached", "contrast", "dense")
