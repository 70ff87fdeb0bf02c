"""The network of the recorded pre-training vectors (golden README, "Pre-training"), its weights and its batch."""

from dataclasses import replace

import numpy as np
import torch
from golden import arrays, recipe

from evar.pretrain.base import Batch, DataFacts
from evar.pretrain.objectives import build
from evar.pretrain.settings import PretrainSettings

SMALL = PretrainSettings(
    input_size=(80, 96), dim=48, depth=2, heads=3, decoder_dim=32, decoder_depth=2, decoder_heads=4
)  # fmt: skip
FACTS = DataFacts((-7.1, 4.2))
LABELLED = replace(FACTS, classes=tuple("abc"))
NOT_RANDOM = ("norm_stats", "pos_embed", "decoder_pos_embed", "logit_scale")


def small(objective="m2d", facts=FACTS, **settings):
    """Return an objective on the small network, initialised with seed 0."""
    torch.manual_seed(0)
    return build(replace(SMALL, objective=objective, **settings), facts)


def recorded(seed, objective="m2d", facts=FACTS, **settings):
    """Return an objective on the small network with the recorded run's weights."""
    model = small(objective, facts, **settings)
    fill = {
        name: torch.from_numpy(recipe().tensor_for(name, tuple(value.shape), seed))
        for name, value in model.state_dict().items()
        if name not in NOT_RANDOM
    }
    assert not model.load_state_dict(fill, strict=False).unexpected_keys
    return model


def recorded_batch(**more):
    """Return the recorded batch of six clips and its noise."""
    stored = arrays("pretrain_forward.npz")
    clips = Batch(np.arange(6), torch.from_numpy(stored["imgs"]), **more)
    return clips, torch.from_numpy(stored["noise"])


def random_batch(clips=4, seed=0, **more):
    """Return a batch of noise, and mask noise, for the small network."""
    generator = torch.Generator().manual_seed(seed)
    log_mel = torch.randn(clips, 1, 80, 96, generator=generator)
    return Batch(np.arange(clips), log_mel, **more), torch.rand(clips, 30, generator=generator)
