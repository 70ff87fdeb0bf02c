"""caption_map: ridge regression against scikit-learn and by its own definition, and the adapter around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from small_bert import save_bert

from evar.errors import UserError
from evar.extract import model_facts
from evar.subject import weights_facts
from model_adapters.base import Adapter, AudioLanguage, ClipBatch, ModelInfo, Prepares
from model_adapters.caption_map import CaptionMap
from model_adapters.networks.ridge import STRENGTHS, RidgeSums
from model_adapters.registry import Model, build_adapter, load_model

CAPTIONS = ("a dog barks", "rain on the roof", "loud music", "quiet speech")


def problem(rows=200, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 12)) * rng.uniform(0.1, 30, 12) + 100
    x[:, 5] = 7.0  # never varies
    y = x @ rng.normal(size=(12, 4)) / 10 + noise * rng.normal(size=(rows, 4)) + 3
    return x, y


def fit(x, y, batch=32):
    sums = RidgeSums()
    for start in range(0, len(x), batch):
        sums.add(x[start : start + batch], y[start : start + batch])
    return sums.solve()


def test_the_map_is_scikit_learns_ridge_on_standardised_inputs():
    x, y = problem()
    fitted = fit(x, y)
    scale = np.where(x.std(0) > 0, x.std(0), 1)
    model = Ridge(alpha=fitted.strength * len(x)).fit((x - x.mean(0)) / scale, y)
    ours = (x - fitted.mean) @ fitted.weights + fitted.offset
    assert np.abs(ours - model.predict((x - x.mean(0)) / scale)).max() < 1e-9
    assert (fitted.weights[5] == 0).all()


def test_the_strength_has_the_least_generalised_cross_validation_error():
    """Against the definition with the hat matrix written out."""
    x, y = problem(rows=40, noise=20)
    z = x - x.mean(0)
    z /= np.where(z.std(0) > 0, z.std(0), 1)
    errors = []
    for strength in STRENGTHS:
        hat = z @ np.linalg.solve(z.T @ z + strength * 40 * np.eye(12), z.T) + 1 / 40
        errors.append(((y - hat @ y) ** 2).sum() / (1 - np.trace(hat) / 40) ** 2)
    assert fit(x, y).strength == STRENGTHS[int(np.argmin(errors))]
    assert STRENGTHS[0] < fit(x, y).strength < STRENGTHS[-1]


def test_noise_asks_for_more_strength():
    assert fit(*problem(noise=50)).strength > fit(*problem(noise=0.01)).strength


@pytest.mark.parametrize("batch", [1, 7, 200])
def test_neither_batches_nor_order_matter(batch):
    x, y = problem()
    order = np.random.default_rng(1).permutation(200)
    once, again = fit(x, y, 50), fit(x[order], y[order], batch)
    assert once.strength == again.strength
    assert np.abs(once.weights - again.weights).max() < 1e-10


def test_fewer_rows_than_inputs_still_give_a_finite_map():
    x, y = problem(rows=6)
    assert np.isfinite(fit(x, y).weights).all()
    with pytest.raises(UserError, match="at least three training clips; there are 2"):
        fit(x[:2], y[:2])


class Toy(Adapter):
    """Embeds a clip as its first four samples; may ask to be prepared."""

    info = ModelInfo(title="toy", kind="audio", paper="", code_licence="MIT")
    sample_rate, embedding_dim = 8000, 4

    def __init__(self, demanding=False):
        super().__init__()
        self.needs_prepare, self.prepared_with = demanding, None

    def embed(self, waveforms, lengths):
        return waveforms[:, :4] + (0 if self.prepared_with is None else 1)

    def prepare(self, unit_seconds, training_clips):
        self.prepared_with = (unit_seconds, len(training_clips))


class Clips:
    """Training clips of four classes, told apart by which of four samples is large."""

    batch_size = 8

    def __init__(self, captions=True, order=None):
        classes = torch.arange(80) % 4
        x = torch.nn.functional.one_hot(classes, 4) + 0.1 * torch.randn(
            80, 4, generator=torch.Generator().manual_seed(2)
        )
        order = torch.arange(80) if order is None else order
        self.x, self.classes, self.has_captions = x[order], classes[order], captions

    def __len__(self):
        return 80

    def batches(self, sample_rate, batch_size, *, shuffle_seed=None, limit=None):
        for start in range(0, 80, batch_size):
            stop = min(80, start + batch_size)
            captions = tuple(CAPTIONS[c] for c in self.classes[start:stop]) if self.has_captions else ()
            yield ClipBatch(self.x[start:stop], torch.full((stop - start,), 4), captions)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(save_bert(tmp_path_factory.mktemp("bert")))


def test_clips_land_at_their_captions(encoder):
    adapter, clips = CaptionMap(Toy(), text_encoder=encoder), Clips()
    adapter.prepare(1.0, clips)
    heard = adapter.embed_audio(clips.x, torch.full((80,), 4))
    assert heard.shape == (80, adapter.joint_dim) == (80, 128)
    assert torch.equal((heard @ adapter.embed_text(CAPTIONS).T).argmax(1), clips.classes)
    assert isinstance(adapter, AudioLanguage) and isinstance(adapter, Prepares)
    assert adapter.fitted_on_task and adapter.needs_prepare


def test_the_mean_caption_is_not_in_the_audio_vector(encoder):
    adapter, clips = CaptionMap(Toy(), text_encoder=encoder), Clips()
    adapter.prepare(1.0, clips)
    assert adapter.embed_audio(clips.x, torch.full((80,), 4)).mean(0).abs().max() < 1e-4


def test_the_state_names_the_fitted_map_and_not_the_order_of_the_clips(encoder):
    one, two = CaptionMap(Toy(), text_encoder=encoder), CaptionMap(Toy(), text_encoder=encoder)
    assert "map" not in one.state()
    one.prepare(1.0, Clips())
    two.prepare(1.0, Clips(order=torch.randperm(80, generator=torch.Generator().manual_seed(1))))
    assert one.state()["map"]["strength"] == two.state()["map"]["strength"]
    assert torch.allclose(one.weights, two.weights, atol=1e-5)
    again = CaptionMap(Toy(), text_encoder=encoder)
    again.prepare(1.0, Clips())
    assert again.state() == one.state() and len(one.state()["map"]["sha256"]) == 64
    assert one.weights_sha256 == f"base v1 -, text {one.text_encoder.sha256}"


def test_a_base_that_wants_to_be_prepared_comes_first(encoder):
    base = Toy(demanding=True)
    CaptionMap(base, text_encoder=encoder).prepare(2.5, Clips())
    assert base.prepared_with == (2.5, 80)


def test_what_cannot_be_is_one_line(encoder):
    adapter = CaptionMap(Toy(), text_encoder=encoder)
    with pytest.raises(UserError, match="has not seen"):
        adapter.embed_audio(torch.zeros(1, 4), torch.tensor([4]))
    with pytest.raises(UserError, match="this one has none"):
        adapter.prepare(1.0, Clips(captions=False))


def test_the_registry_builds_it_over_any_model(encoder):
    adapter = build_adapter("caption_map:gpvad", "random:1", {"text_encoder": encoder})
    assert adapter.embedding_dim == 256 and adapter.sample_rate == 22050
    assert "random:1" in adapter.weights_sha256 and adapter.trained_on == ("as", "as20k")


class Geometric(Toy):
    """A base whose state is not to be read from its weights, as M2D's geometry, which its folder's name gives."""

    def __init__(self, patch):
        super().__init__()
        self.patch = patch

    def state(self):
        return {"patch": self.patch}


def test_the_bases_state_is_in_the_key_before_the_map_is_fitted(encoder):
    keys = [
        model_facts(Model("x", CaptionMap(base, text_encoder=encoder), CaptionMap.info), 1.0, "fp32", "joint", "clips")
        for base in (Geometric(16), Geometric(16), Geometric(80))
    ]
    assert keys[0] == keys[1] != keys[2]


def test_the_base_has_its_options_and_its_licence(encoder):
    options = {"text_encoder": encoder, "stats": "audioset", "depth": "1", "embed_dim": "64"}
    model = load_model("caption_map:ast", "random", options)
    assert model.adapter.embedding_dim == 64 and model.options["stats"] == "audioset"
    assert weights_facts(model)["licence"] == "BSD-3-Clause"
