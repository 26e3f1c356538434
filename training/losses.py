"""What the network is asked for: masks, honest scores, features that tell classes apart, dense maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from training.config import Config
    from training.decoder import Decoded
    from training.prompts import Prompts


def mask_targets(labels: Tensor, ids: Tensor) -> Tensor:
    """Cut the wanted masks out of the label maps, at half the input's size.

    Parameters
    ----------
    labels
        (b, size, size).
    ids
        (b, k) objects; -1 gives an empty mask.

    Returns
    -------
    Tensor
        (b * k, size / 2, size / 2) share of each cell that is inside, 0 to 1.
    """
    # four comparisons instead of a pooled large one: the compiler fuses them without writing the full size
    wanted = ids[..., None, None]
    inside = torch.zeros((), device=labels.device)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        inside = inside + (labels[:, None, row::2, column::2] == wanted).float() * 0.25
    return inside.flatten(0, 1)


def mask_losses(decoded: Decoded, target: Tensor, single: Tensor) -> dict[str, Tensor]:
    """Compare predicted with wanted masks.

    Parameters
    ----------
    decoded
        Masks and scores of n prompts.
    target
        (n, height, width) wanted masks, 0 to 1; empty where there is no object.
    single
        (n,) whether the prompt asks for one mask (a box) or for three candidates (a click).

    Returns
    -------
    dict
        Losses ``mask``, ``stability``, ``iou`` and ``object``, and ``reached``, the mean IoU of the best candidate.
    """
    logits = F.interpolate(decoded.masks.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
    want = target[:, None]
    area = want.sum((2, 3))
    there = (area[:, 0] > 2).float()
    count = there.sum().clamp(min=1)
    p = logits.sigmoid()
    wrong = F.binary_cross_entropy_with_logits(logits, want.expand_as(logits), reduction="none")
    # pixels that are right already count little; divided by the object's area, so that small ones weigh the same
    wrong = ((p - want).abs() * wrong).sum((2, 3)) / (3 * area).clamp(min=150)
    dice = 1 - (2 * (p * want).sum((2, 3)) + 1) / (p.sum((2, 3)) + area + 1)
    each = wrong + dice
    best, which = each[:, 1:].min(1)
    click = 0.8 * best + 0.2 * each[:, 0] + 0.05 * each[:, 1:].mean(1)
    box = each[:, 0] + 0.2 * best
    mask = (torch.where(single, box, click) * there).sum() / count

    # SAM 2 drops masks whose outline moves when the threshold does: ask for steep edges
    chosen = torch.where(single, torch.zeros_like(which), which + 1)
    mine = torch.gather(logits, 1, chosen[:, None, None, None].expand(-1, 1, *logits.shape[2:]))[:, 0]
    steady = torch.sigmoid(4 * (mine - 1)).sum((1, 2)) / torch.sigmoid(4 * (mine + 1)).sum((1, 2)).clamp(min=1)
    stability = (F.relu(0.97 - steady) * there).sum() / count

    with torch.no_grad():
        hard, real = (logits > 0).float(), (want > 0.5).float()
        both = (hard * real).sum((2, 3))
        reached = both / (hard.sum((2, 3)) + real.sum((2, 3)) - both).clamp(min=1) * there[:, None]
    iou = F.binary_cross_entropy_with_logits(decoded.iou.float(), reached, reduction="none").mean(1)
    iou = (iou * (0.4 + 0.6 * there)).mean()
    present = F.binary_cross_entropy_with_logits(decoded.present.float(), there)
    best_iou = (torch.where(single, reached[:, 0], reached[:, 1:].max(1).values) * there).sum() / count
    return {"mask": mask, "stability": stability, "iou": iou, "object": present, "reached": best_iou}


def contrast_loss(embed: Tensor, labels: Tensor, prompts: Prompts, config: Config) -> Tensor:
    """Pull objects of a class together within a picture; push other classes and background away.

    Only objects of the same picture are compared: against other pictures, the features would learn the background.

    Parameters
    ----------
    embed
        (b, c, h, w) picture features.
    labels
        (b, size, size).
    prompts
        Holds the objects to compare and their classes.
    config
        How many background cells take part.

    Returns
    -------
    Tensor
        Supervised contrastive loss.
    """
    b, _c, h, w = embed.shape
    fine = labels[:, 2::4, 2::4]
    pixels = (fine[:, None] == prompts.groups[..., None, None]).float()
    cells = F.avg_pool2d(pixels, fine.shape[-1] // w).flatten(2)
    ground = F.avg_pool2d((fine == 0).float()[:, None], fine.shape[-1] // w).view(b, -1)
    chance, where = (torch.rand_like(ground) * (ground > 0.9)).topk(config.contrast_background, 1)
    cells = torch.cat([cells, F.one_hot(where, h * w).float() * (chance > 0)[..., None]], 1)
    weight = cells.sum(2, keepdim=True)
    mean = cells @ embed.float().flatten(2).transpose(1, 2) / weight.clamp(min=1e-4)
    unit = F.normalize(mean, dim=2)
    kinds = torch.cat([prompts.group_classes, torch.zeros_like(where)], 1)
    valid = weight[..., 0] > 1e-3
    n = valid.shape[1]
    pair = valid[:, :, None] & valid[:, None] & ~torch.eye(n, dtype=torch.bool, device=embed.device)
    same = pair & (kinds[:, :, None] == kinds[:, None])
    similarity = (unit @ unit.transpose(1, 2) / 0.1).masked_fill(~pair, -1e4)
    per = -((similarity - similarity.logsumexp(2, keepdim=True)) * same).sum(2) / same.sum(2).clamp(min=1)
    anchor = same.any(2) & (pair & ~same).any(2) & (kinds > 0)
    # pictures with several classes are what this loss is for
    several = (pair & ~same & (kinds[:, None] > 0)).any(2)
    share = anchor * (0.25 + 0.75 * several)
    return (per * share).sum() / share.sum().clamp(min=1)


def dense_loss(maps: Tensor, target: Tensor) -> Tensor:
    """Inside, boundary and offset to the centre, at a quarter of the input's size.

    Parameters
    ----------
    maps
        (b, 4, height, width) of the auxiliary head, which is thrown away after training.
    target
        The same shape.

    Returns
    -------
    Tensor
        The loss.
    """
    inside = target[:, 0]
    area = F.binary_cross_entropy_with_logits(maps[:, 0], inside)
    edge = F.binary_cross_entropy_with_logits(maps[:, 1], target[:, 1])
    off = F.smooth_l1_loss(maps[:, 2:], target[:, 2:], reduction="none").clamp(max=3).sum(1)
    return area + 2 * edge + 2 * (off * inside).sum() / inside.sum().clamp(min=1)
