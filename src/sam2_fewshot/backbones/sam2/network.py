"""A loaded SAM 2 on its device: images to embeddings, prompts to masks, crops to feature vectors."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from sam2_fewshot.backbones.sam2.cpu import use_onednn
from sam2_fewshot.backbones.sam2.decoder import PromptDecoder
from sam2_fewshot.backbones.sam2.device import (
    PROMPTS_ON_CPU,
    describe,
    extra_bytes,
    fitting,
    image_bytes,
    prompt_bytes,
    run_in_batches,
)
from sam2_fewshot.backbones.sam2.encoder import CompiledEncoder, ImageEncoder, mirrored
from sam2_fewshot.backbones.sam2.masks import joined, stable_masks
from sam2_fewshot.backbones.sam2.pyramid import Embedding, Tile
from sam2_fewshot.protocols import PromptedMasks
from sam2_fewshot.resources import tiles_at_a_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from sam2_fewshot.backbones.sam2.decoder import DecodedPrompts
    from sam2_fewshot.backbones.sam2.encoder import Encoder
    from sam2_fewshot.protocols import Gates
    from sam2_fewshot.records import Box, InstanceMask
    from sam2_fewshot.settings import Settings

# ImageNet's mean and standard deviation of RGB in [0, 1]; SAM 2 was trained with them
# (``sam2/utils/transforms.py``).
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FEATURES = 12
"""How many times as large as an embedding the features of a tile are at the resolution of the finest level: C channels
of three levels on 16 times the coarse level's cells, where an embedding has 4 C for each of these."""


class Sam2Model:
    """SAM 2's image part, ready to use: a :class:`~sam2_fewshot.protocols.Backbone`.

    Parameters
    ----------
    network
        A ``sam2.modeling.sam2_base.SAM2Base``.
    name, sha256
        What the checkpoint is called, and the hash of its file.
    gates
        The checkpoint's default gates on predicted IoU and stability.
    device, dtype
        Where to compute, and the type of the large matrix products.
    batch_size, points_per_batch
        Crops encoded and prompts decoded at a time; 0 chooses by device.
    compiled
        Whether to compile the image encoder for the device; see :mod:`sam2_fewshot.backbones.sam2.encoder`.
    encoder
        What encodes images; None for the network's own encoder.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        sha256: str,
        gates: Gates,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 0,
        points_per_batch: int = 0,
        compiled: bool = False,
        encoder: Encoder | None = None,
    ) -> None:
        # sam2 has no type hints that mypy could follow.
        with fitting():
            untyped: Any = network.to(device).eval()
        self.network = untyped
        if device.type == "cpu":
            use_onednn(untyped)
        accelerated = device.type != "cpu"
        plain = encoder or ImageEncoder(untyped)
        at_a_time = batch_size or (0 if accelerated else 1)
        self.encoder = CompiledEncoder(plain, dtype, at_a_time) if compiled else plain
        self.name, self.sha256, self.gates = name, sha256, gates
        self.device, self.dtype = device, dtype
        self.input_size = int(untyped.image_size)
        # On a CPU a batch of one is fastest: larger ones leave the caches (.122 s an image alone, .162 s in eights).
        self.most_tiles = 1 << 30  # in a batch
        self.batch_size = batch_size or (32 if accelerated else 1)
        self.points_per_batch = points_per_batch or (512 if accelerated else PROMPTS_ON_CPU)

    @property
    def device_name(self) -> str:
        """The device in words."""
        return describe(self.device)

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on the CPU."""
        return self.device.type == "cpu"

    @property
    def shares_memory(self) -> bool:
        """Whether it computes in the computer's own memory, as the CPU and Apple's GPUs do."""
        return self.device.type in ("cpu", "mps")

    def keep_within(self, settings: Settings) -> None:
        """Take no larger batches than fit into ``max_memory`` where the device has no memory of its own.

        A size that the user chose stays, and so do those of the CPU, which are small.
        """
        if not self.shares_memory:
            return
        memory = settings.max_memory
        self.most_tiles = tiles_at_a_time(memory, self.tile_bytes)
        if self.on_cpu:
            return
        if not settings.batch_size:
            self.batch_size = min(self.batch_size, tiles_at_a_time(memory, image_bytes(self.input_size)))
        if not settings.points_per_batch:
            self.points_per_batch = min(self.points_per_batch, tiles_at_a_time(memory, prompt_bytes(self.input_size)))

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the input that a cell of the fine, middle and coarse level covers each way."""
        coarse = self.input_size // self.feature_size[0]
        return coarse // 4, coarse // 2, coarse

    @property
    def channels(self) -> tuple[int, ...]:
        """Number of features at the fine, middle and coarse level."""
        return (int(self.network.sam_prompt_encoder.embed_dim),) * 3

    @property
    def feature_size(self) -> tuple[int, int]:
        """Height and width of the coarse feature map."""
        height, width = self.network.sam_prompt_encoder.image_embedding_size
        return int(height), int(width)

    @property
    def embedding_bytes(self) -> int:
        """Memory of an image's :class:`~sam2_fewshot.backbones.sam2.pyramid.Embedding` in bytes, as float32."""
        height, width = self.feature_size
        channels = int(self.network.sam_prompt_encoder.embed_dim)
        # C channels at the coarse level, C / 4 at twice and C / 8 at four times its size.
        return 4 * height * width * (channels + 4 * (channels // 4) + 16 * (channels // 8))

    @property
    def tile_bytes(self) -> int:
        """Memory of a tile's feature pyramid in bytes."""
        # C channels on 1, 4 and 16 times the coarse level's cells; an embedding has 4 C for each of these.
        return 21 * self.embedding_bytes // 4

    @property
    def extra_bytes(self) -> int:
        """Memory of the computer in bytes that it takes beyond what the embedded checkpoint does (an estimate).

        Of what lies in a GPU's own memory only the features of one tile at a time come here, for learning.
        """
        if not self.shares_memory:
            return _FEATURES * self.embedding_bytes
        weights = sum(each.numel() * each.element_size() for each in self.network.parameters())
        return extra_bytes(weights, self.input_size, self.batch_size, self.points_per_batch)

    @fitting()
    def embed(self, image: NDArray[np.uint8]) -> Embedding:
        """Encode an image, uint8 RGB (H, W, 3), as ``SAM2ImagePredictor.set_image`` does."""
        with self._inference():
            coarse, fine, middle = self._encode(self._prepare(self._upload(image))[None])
            return Embedding(coarse, self._high_res(fine, middle), (image.shape[0], image.shape[1]))

    def pool(
        self,
        image: NDArray[np.uint8],
        windows: Sequence[Box],
        masks: Sequence[InstanceMask],
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> NDArray[np.float32]:
        """Average the coarse features of a window over each mask; see :class:`~sam2_fewshot.protocols.Backbone`."""

        def run(batch: Sequence[tuple[Box, InstanceMask]]) -> NDArray[np.float32]:
            with self._inference():
                crops = torch.stack([self._prepare(mirrored(frame, window)) for window, _ in batch])
                weights = torch.stack([self._feature_weights(window, mask) for window, mask in batch])
                pooled = _on_host(mask_weighted_mean(self._encode(crops)[0].float(), weights))
            on_batch(len(batch))
            return pooled

        with fitting():
            frame = self._upload(image)
        pairs = list(zip(windows, masks, strict=True))
        return np.concatenate([self._no_features, *run_in_batches(run, pairs, self.batch_size, self._fewer_images)])

    @fitting()
    def pool_frame(self, image: NDArray[np.uint8], masks: Sequence[InstanceMask]) -> NDArray[np.float32]:
        """Encode the image as a whole, once, and average its coarse features over each mask, float32 (N, C)."""
        if not masks:
            return self._no_features
        features = self.embed(image).image_embed.float()
        window = (0, 0, image.shape[1], image.shape[0])
        # One at a time: the masks of a large frame would take much memory at once.
        pooled = [mask_weighted_mean(features, self._feature_weights(window, mask)[None]) for mask in masks]
        return _on_host(torch.cat(pooled))

    def tiles(
        self,
        image: NDArray[np.uint8],
        windows: Sequence[Box],
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> Iterator[Tile]:
        """Encode windows of an image in batches; see :class:`~sam2_fewshot.protocols.Backbone`."""

        def run(batch: Sequence[Box]) -> list[Tile]:
            with self._inference():
                crops = [self._prepare(mirrored(frame, window)) for window in batch]
                coarse, fine, middle = self._encode(torch.stack(crops))
                high_res = self._high_res(fine, middle)
            on_batch(len(batch))
            return [
                Tile(
                    (fine[i], middle[i], coarse[i]),
                    # Copies, so that an embedding that outlives its tile does not hold the memory of the whole batch.
                    Embedding(
                        coarse[i : i + 1].clone(),
                        (high_res[0][i : i + 1].clone(), high_res[1][i : i + 1].clone()),
                        (y1 - y0, x1 - x0),
                    ),
                )
                for i, (x0, y0, x1, y1) in enumerate(batch)
            ]

        with fitting():
            frame = self._upload(image)
        for tiles in run_in_batches(run, windows, min(self.batch_size, self.most_tiles), self._fewer_images):
            yield from tiles

    def prompt(
        self,
        embedding: Embedding,
        coordinates: NDArray[np.float32],
        *,
        iou_gate: float = -math.inf,
        stability_gate: float = 0.0,
        reach: float = math.inf,
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> PromptedMasks:
        """Decode points into three masks each; see :class:`~sam2_fewshot.protocols.Backbone`.

        SAM 2's prompt encoder takes `coordinates` as they are and adds half a pixel itself.
        """
        decoder = self._decoder(embedding)

        def run(batch: Sequence[int]) -> PromptedMasks:
            with self._inference():
                points = torch.from_numpy(coordinates[batch[0] : batch[-1] + 1]).to(self.device)
                masks = self._masks(decoder.decode(points, iou_gate, reach), embedding, stability_gate, batch[0])
            on_batch(len(batch))
            return masks

        prompts = range(len(coordinates))
        return joined(list(run_in_batches(run, prompts, self.points_per_batch, self._fewer_prompts)))

    def prompt_boxes(self, embedding: Embedding, boxes: NDArray[np.float32]) -> PromptedMasks:
        """Decode boxes into one mask each; see :class:`~sam2_fewshot.protocols.Backbone`."""
        decoder = self._decoder(embedding)
        # The widest box of a batch sets the width of the windows that are upscaled.
        order = np.argsort((boxes[:, 2:] - boxes[:, :2]).max(axis=1), kind="stable")
        by_width = boxes[order]

        def run(batch: Sequence[int]) -> PromptedMasks:
            with self._inference():
                decoded = decoder.decode_boxes(torch.from_numpy(by_width[batch[0] : batch[-1] + 1]).to(self.device))
                return self._masks(decoded, embedding, 0.0, batch[0])

        prompts = range(len(boxes))
        return joined(list(run_in_batches(run, prompts, self.points_per_batch, self._fewer_prompts)), order)

    @fitting()
    def _decoder(self, embedding: Embedding) -> PromptDecoder:
        with self._inference():
            return PromptDecoder(self.network, embedding)

    def _masks(self, decoded: DecodedPrompts, embedding: Embedding, gate: float, first: int) -> PromptedMasks:
        """Turn the logits of prompts, the first of which has a number, into masks of at least some stability."""
        masks = stable_masks(decoded.logits, embedding.frame_shape, gate)
        prompt = first + decoded.prompt.cpu().numpy()[masks.position]
        predicted = _on_host(decoded.predicted_iou)[masks.position].astype(np.float64)
        return PromptedMasks(prompt, predicted, masks.stability, masks.boxes, masks.data)

    def _fewer_images(self, size: int) -> None:
        self.batch_size = size

    def _fewer_prompts(self, size: int) -> None:
        self.points_per_batch = size

    def _high_res(self, fine: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
        """Project the finer levels to what the decoder takes."""
        decoder = self.network.sam_mask_decoder
        return decoder.conv_s0(fine), decoder.conv_s1(middle)

    @contextmanager
    def _inference(self) -> Iterator[None]:
        kind = self.device.type
        # Autocast to float32 is none, but older versions of torch warn that an Apple GPU cannot do it.
        plain = self.dtype == torch.float32
        with torch.inference_mode(), torch.autocast(kind, enabled=False) if plain else torch.autocast(kind, self.dtype):
            yield

    @property
    def _no_features(self) -> NDArray[np.float32]:
        channels = self.network.sam_prompt_encoder.embed_dim
        return np.zeros((0, channels), np.float32)

    def _upload(self, image: NDArray[np.uint8]) -> Tensor:
        """Bring an image (H, W, 3) to the device as (3, H, W), still uint8: a quarter of the bytes of floats."""
        # torch warns about arrays that may not be written, such as those of Pillow.
        ready = np.require(image, requirements=["C", "W"])
        return torch.from_numpy(ready).to(self.device).permute(2, 0, 1)

    def _prepare(self, image: Tensor) -> Tensor:
        """Resize (3, h, w) uint8 to the model's input and normalise it, as ``SAM2Transforms`` does."""
        size = (self.input_size, self.input_size)
        scaled = image.float() / 255
        if scaled.shape[1:] != size:
            scaled = functional.interpolate(scaled[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
        mean = torch.tensor(_MEAN, dtype=torch.float32, device=self.device)[:, None, None]
        std = torch.tensor(_STD, dtype=torch.float32, device=self.device)[:, None, None]
        return (scaled - mean) / std

    def _encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the image encoder: coarse features with the "no memory" token, and the two finer levels."""
        fine, middle, coarse = self.encoder(images)
        if self.network.directly_add_no_mem_embed:
            coarse = coarse + self.network.no_mem_embed.reshape(1, -1, 1, 1)
        return coarse, fine, middle

    def _feature_weights(self, window: Box, mask: InstanceMask) -> Tensor:
        """Return the share (h, w) of each feature cell of a window that lies on the mask."""
        inside = torch.from_numpy(mask.window(window)).to(self.device, torch.float32)
        # Antialiasing keeps an object smaller than a feature cell; plain bilinear sampling can miss it.
        return functional.interpolate(
            inside[None, None], self.feature_size, mode="bilinear", align_corners=False, antialias=True
        )[0, 0]


def mask_weighted_mean(features: Tensor, weights: Tensor) -> Tensor:
    """Average features over masks.

    Parameters
    ----------
    features
        (N, C, h, w).
    weights
        (N, h, w), not negative. Where all are 0 the mean over the whole map is taken.

    Returns
    -------
    Tensor
        (N, C): ``(features * mask).sum((2, 3)) / mask.sum()`` of the seed document, a mask at a time.
    """
    weights = torch.where(weights.sum((1, 2), keepdim=True) > 0, weights, torch.ones_like(weights))
    total = torch.einsum("nchw,nhw->nc", features, weights)
    return total / weights.sum((1, 2))[:, None]


def _on_host(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array
