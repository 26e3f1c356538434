"""What the backbone takes an object for: the token behind its mask, compared with those of the examples.

SAM 2's decoder turns a prompt into an output token, which attends to the prompt and to the window and then says which
pixels are the mask's (Kirillov et al. 2023, "Segment Anything", section 3 and appendix A; the same in SAM 2). Where the
maps tell of each place what it looks like, this tells of an object as a whole. Tokens of different objects have most in
common, so they are compared by what sets the examples' apart from those of the other candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sam2_fewshot.methods.guided.classifier import RIGHT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    from sam2_fewshot.methods.guided.classifier import TrainingTable

    Token: TypeAlias = NDArray[np.float32]

_FOLDS = 5


class TokenModel(NamedTuple):
    """Where the examples' tokens lie among those of other candidates.

    Parameters
    ----------
    centre, scale
        float32 (T,), the mean of the others, and how far each number differs among all.
    direction
        float32 (T,), of length 1, from there to the examples' mean, in units of `scale`.
    """

    centre: NDArray[np.float32]
    scale: NDArray[np.float32]
    direction: NDArray[np.float32]

    def similarity(self, tokens: Sequence[Token | None]) -> NDArray[np.float64]:
        """Return the cosines (N,) of tokens to the examples' direction; NaN where a token or the model is not known."""
        known = [i for i, token in enumerate(tokens) if token is not None and len(token) == len(self.direction) > 0]
        similarity = np.full(len(tokens), np.nan)
        if known:
            apart = (np.stack([token for i in known if (token := tokens[i]) is not None]) - self.centre) / self.scale
            similarity[known] = apart @ self.direction / np.maximum(np.linalg.norm(apart, axis=1), 1e-6)
        return similarity


_NOTHING = np.zeros(0, np.float32)
UNKNOWN_TOKENS = TokenModel(_NOTHING, _NOTHING, _NOTHING)
"""Of backbones without tokens, and where nothing is known to be right, or wrong."""


def learn_tokens(tokens: Sequence[Token | None], table: TrainingTable) -> tuple[TokenModel, NDArray[np.float64]]:
    """Learn from the candidates on the examples' frames.

    Parameters
    ----------
    tokens
        Of N candidates; None for those without one.
    table
        What is known of them.

    Returns
    -------
    learned
        The model.
    similarity
        float64 (N,), of the candidates about an example by what was learned without it; NaN where nothing is known.
    """
    learned = _model(tokens, table.label == RIGHT, table.label != RIGHT)
    similarity = learned.similarity(tokens)
    examples = np.unique(table.owner[table.owner >= 0])
    for fold in range(min(_FOLDS, len(examples))):
        here = np.isin(table.owner, examples[fold::_FOLDS])
        without = _model(tokens, (table.label == RIGHT) & ~here, (table.label != RIGHT) & ~here)
        similarity[here] = without.similarity([token for token, is_here in zip(tokens, here, strict=True) if is_here])
    return learned, similarity


def _model(tokens: Sequence[Token | None], right: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> TokenModel:
    """Return the model of some right and some wrong candidates."""
    on, off = (
        [token for token, is_of in zip(tokens, kind, strict=True) if is_of and token is not None]
        for kind in (right, wrong)
    )
    if not on or not off or not len(on[0]):
        return UNKNOWN_TOKENS
    centre, scale = np.mean(off, axis=0), np.std([*on, *off], axis=0) + np.float32(1e-6)
    direction = (np.mean(on, axis=0) - centre) / scale
    return TokenModel(centre, scale, direction / max(float(np.linalg.norm(direction)), 1e-6))
