"""HTS-AT: recorded values, every tensor of the published file accounted for, pieces of long clips, the tagger."""

import pytest
import torch
from adapter_goldens import agrees, clips
from golden import needs_shared
from htsat_files import decibels, names_and_shapes, recipe_state

from evar.errors import UserError
from model_adapters.htsat import HtsAt
from model_adapters.networks.htsat import Htsat, HtsatSize, from_transformers, size_of, to_transformers
from model_adapters.registry import build_adapter

SMALL = {"weights": "random", "depth": 1, "embed_dim": 16}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def lengths(x):
    return torch.full((len(x),), x.shape[1])


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    path = tmp_path_factory.mktemp("htsat") / "HTSAT_AudioSet_Saved_1.ckpt"
    torch.save({"state_dict": {f"sed_model.{k}": v for k, v in recipe_state("htsat").items()}, "epoch": 3}, path)
    return HtsAt(weights=str(path))


@needs_shared
@pytest.mark.parametrize("seconds", [1, 5])
def test_recorded_values(published, seconds):
    x = clips(32000, seconds)
    log_mel = published.log_mel(x)
    agrees(f"htsat.logmel.{seconds}s", decibels(published, x))
    agrees(f"htsat.latent.{seconds}s", published.encode(log_mel))


@needs_shared
def test_the_names_are_the_published_ones():
    listed = {k: s for k, s in names_and_shapes("htsat").items() if not k.startswith(("logmel", "tscam", "head"))}
    own = from_transformers(Htsat(HtsatSize()).encoder.state_dict())
    own = {k: tuple(v.shape) for k, v in own.items() if not k.endswith("relative_position_index")}
    assert own == listed


def test_names_there_and_back():
    state = from_transformers(Htsat(HtsatSize(32, (1, 1, 1, 1))).encoder.state_dict())
    again = from_transformers(to_transformers(state))  # the constants are dropped on the way there
    assert set(state) - set(again) == {k for k in state if k.endswith("relative_position_index")}
    assert all(torch.equal(state[k], v) for k, v in again.items())
    assert size_of(state) == HtsatSize(32, (1, 1, 1, 1))


def test_a_clip_over_ten_seconds_is_the_mean_of_its_pieces():
    model, x = HtsAt(**SMALL), torch.randn(1, 32000 * 23)
    pieces = [model.embed(piece, lengths(piece)) for piece in x.split(320000, dim=1)]
    assert len(pieces) == 3
    assert torch.allclose(model.embed(x, lengths(x)), torch.stack(pieces).mean(0), atol=1e-5)


def test_a_short_piece_is_repeated_whole_times():
    model, x = HtsAt(**SMALL), torch.randn(1, 32000)
    log_mel = model.log_mel(x)
    assert log_mel.shape == (1, 1, 64, 101)
    assert torch.equal(model.encode(log_mel), model.network(log_mel.repeat(1, 1, 1, 10)))


def test_fine_tunings_masks_are_each_bands_mean():
    """RUNNERS 2.3: what is masked is 0, the mean after standardisation; also in training, where nothing is learned of
    the batch before augmentation."""
    model = HtsAt(**SMALL).train()
    norm = model.network.encoder.batch_norm
    x = 0.01 * torch.randn(4, 32000)
    raw = decibels(model, x)[:, 0]
    norm.running_mean.copy_(raw.mean(dim=(0, 1)))
    norm.running_var.copy_(raw.var(dim=(0, 1)))
    before = norm.running_mean.clone()
    log_mel = model.log_mel(x)
    assert raw.mean() < -20 and abs(float(log_mel.mean())) < 1e-4
    assert float(log_mel.std()) == pytest.approx(1, abs=0.05)
    model.encode(log_mel)
    assert torch.equal(norm.running_mean, before)


def test_any_length_and_silence():
    model, x = HtsAt(**SMALL), torch.zeros(2, 3200)
    x[1] += 0.1 * torch.randn(x.shape[1])
    together = model.embed(x, lengths(x))
    assert together.isfinite().all() and together.shape == (2, 128)
    assert torch.equal(together, model.embed(x, lengths(x)))
    alone = torch.cat([model.embed(clip[None], lengths(clip[None])) for clip in x])
    assert (together - alone).abs().max() < 1e-4
    minute = torch.zeros(1, 32000 * 60)
    assert torch.allclose(model.embed(minute, lengths(minute)), model.embed(minute[:, :320000], lengths(minute)))


def test_it_is_a_tagger():
    model, x = HtsAt(**SMALL), torch.randn(2, 32000 * 3)
    found = model.tag_probabilities(x, lengths(x))
    assert found.shape == (2, 527) == (2, len(model.class_names))
    assert ((found > 0) & (found < 1)).all()


@needs_shared
def test_the_published_tagging_layer_is_used(published):
    weight = recipe_state("htsat")["tscam_conv.weight"]
    assert torch.equal(published.tscam_conv.weight, weight)
    assert published.tscam_conv(torch.zeros(1, 768, 2, 32)).shape == (1, 527, 1, 32)
    assert published.class_names[0] == "Speech"


def test_an_untrained_network_depends_on_its_seed():
    x = torch.randn(1, 32000)
    a, b, c = (HtsAt(**{**SMALL, "weights": w}).embed(x, lengths(x)) for w in ("random", "random:0", "random:1"))
    assert torch.equal(a, b) and not torch.allclose(a, c)


def test_a_skeleton_takes_its_tensors():
    model = HtsAt(**SMALL)
    bones = model.skeleton()
    other = build_adapter(bones.model, "random:9", bones.options)
    other.load_state_dict(model.state_dict())
    x = torch.randn(1, 32000)
    assert torch.equal(other.embed(x, lengths(x)), model.embed(x, lengths(x)))


def test_what_does_not_fit_is_named(tmp_path):
    torch.save({"state_dict": {"sed_model.head.weight": torch.ones(2)}}, tmp_path / "w.ckpt")
    with pytest.raises(UserError, match="not those of HTS-AT"):
        HtsAt(weights=str(tmp_path / "w.ckpt"))
    state = from_transformers(Htsat(HtsatSize(32, (1, 1, 1, 1))).encoder.state_dict())
    torch.save({"state_dict": {k: v for k, v in state.items() if k != "norm.bias"}}, tmp_path / "w.ckpt")
    with pytest.raises(UserError, match=r"missing: norm\.bias"):
        HtsAt(weights=str(tmp_path / "w.ckpt"))
    with pytest.raises(UserError, match="divisible by 4"):
        HtsAt(weights="random", embed_dim=18)


def test_mel_filters_of_the_file_are_used(tmp_path):
    state = from_transformers(Htsat(HtsatSize(32, (1, 1, 1, 1))).encoder.state_dict())
    state["logmel_extractor.melW"] = torch.rand(513, 64)
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    model = HtsAt(weights=str(tmp_path / "w.ckpt"))
    assert torch.equal(model.front_end.filters, state["logmel_extractor.melW"])
    assert model.skeleton() is None


def test_mel_filters_of_another_front_end_are_refused_at_once(tmp_path):
    state = from_transformers(HtsAt(**SMALL).network.encoder.state_dict())
    torch.save(state | {"logmel_extractor.melW": torch.rand(257, 64)}, tmp_path / "w.ckpt")
    with pytest.raises(UserError, match=r"in 'w.ckpt' have mel filters \(melW\) of \[257, 64\] and not \[513, 64\]"):
        HtsAt(weights=str(tmp_path / "w.ckpt"))


def test_without_the_tagging_layer_tags_are_a_users_error(tmp_path):
    torch.save(from_transformers(HtsAt(**SMALL).network.encoder.state_dict()), tmp_path / "w.ckpt")
    model = HtsAt(weights=str(tmp_path / "w.ckpt"))
    with pytest.raises(UserError, match="no tagging layer"):
        model.tag_probabilities(torch.zeros(1, 3200), torch.tensor([3200]))
