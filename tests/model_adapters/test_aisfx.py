"""aiSFX: front end and network against what Essentia and the authors' package gave for the recorded clips."""

import hashlib

import numpy as np
import pytest
import torch
from adapter_goldens import clips
from small_speech import heard

from evar.errors import UserError
from model_adapters.networks import aisfx as network
from model_adapters.registry import build_adapter

ESSENTIA = {
    # seconds: frames; per clip first and last values, mean, standard deviation of Essentia 2.1b6's log10(1 + 10000 p)
    1.0: (
        45,
        ([5.041959, 5.152469], [0.021342, 0.030124], 4.210658, 0.820806),
        ([4.51207], [0.003513], 4.186626, 0.786157),
    ),
    5.0: (
        217,
        ([5.041959, 5.152469], [1.904804, 2.196296], 4.297504, 0.527310),
        ([4.51207], [1.910512], 4.281622, 0.479938),
    ),
}
PACKAGE = {
    # seconds: per clip: first and last values, mean, Euclidean norm of the mean over blocks
    1.0: (
        ([1.5442468, 1.4134831, 2.0873678], [2.1163881, 0.4667824, 1.1560293], 1.3772576, 36.94726),
        ([1.0848173, 1.5285498, 1.6729336], [2.6750567, 0.8087966, 1.2607669], 1.4633031, 39.09036),
    ),
    5.0: (
        ([1.7906765, 1.0399768, 1.3314000], [1.7561828, 0.1590215, 1.3066784], 1.0130444, 27.862982),
        ([1.1458696, 1.1874940, 0.6703017], [2.0456254, 0.4515376, 1.4988823], 1.1415900, 31.19661),
    ),
}


@pytest.fixture(scope="module")
def published():
    """The model with its real weights, where the wheel or the weights folder has them."""
    try:
        return build_adapter("aisfx")
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def small():
    return build_adapter("aisfx", "random:3", {"width": "8"})


@pytest.mark.parametrize("seconds", ESSENTIA)
def test_the_front_end_is_essentias(seconds):
    frames, *expected = ESSENTIA[seconds]
    found = network.AisfxLogMel()(clips(44100, seconds)) * network.LARGEST
    assert found.shape == (2, 96, frames)
    for log_mel, (first, last, mean, std) in zip(found, expected, strict=True):
        flat = log_mel.T.flatten()
        np.testing.assert_allclose(flat[: len(first)], first, atol=2e-5)
        np.testing.assert_allclose(flat[-len(last) :], last, atol=2e-5)
        np.testing.assert_allclose([flat.mean(), flat.std(correction=0)], [mean, std], atol=2e-5)


@pytest.mark.parametrize(("samples", "frames"), [(600, 2), (4410, 6), (7167, 8), (7168, 8), (7169, 9), (133077, 131)])
def test_as_many_frames_as_essentia_gives(samples, frames):
    assert network.AisfxLogMel()(torch.zeros(1, samples)).shape == (1, 96, frames)


def test_silence_is_zero():
    assert network.AisfxLogMel()(torch.zeros(1, 44100)).abs().max() == 0


@pytest.mark.parametrize("seconds", PACKAGE)
def test_the_published_weights_give_the_packages_embeddings(published, seconds):
    assert published.weights_sha256 == network.SHA256
    found = heard(published, clips(44100, seconds))
    for vector, (first, last, mean, norm) in zip(found, PACKAGE[seconds], strict=True):
        np.testing.assert_allclose(vector[:3], first, atol=1e-4)
        np.testing.assert_allclose(vector[-3:], last, atol=1e-4)
        np.testing.assert_allclose([vector.mean(), vector.norm()], [mean, norm], rtol=1e-5)


def test_blocks_overlap_by_half_and_their_mean_is_the_clips(small):
    clip = clips(44100, 5.0, 1)
    log_mel = small.log_mel(clip)
    blocks, step = small.embed_frames(clip, torch.tensor([clip.shape[1]]))
    assert blocks.shape == (1, 3, 64) and step == pytest.approx(1.161, abs=1e-3)
    with torch.inference_mode():
        second = small.network(log_mel[..., 50:150])
    assert torch.allclose(blocks[:, 1], second, atol=1e-5)
    assert torch.allclose(heard(small, clip), blocks.mean(1), atol=1e-6)
    rest = heard(small, torch.cat([clip, torch.zeros(1, 10240)], 1))  # 10 frames more: no block more
    assert torch.allclose(rest, heard(small, clip), atol=1e-5)


def test_lengths_batches_and_seeds(small):
    for samples in (1, 4410, 60 * 44100):
        assert heard(small, torch.zeros(1, samples)).isfinite().all()
    two = clips(44100, 1.0)
    together = heard(small, two)
    assert torch.equal(together, heard(small, two))
    assert torch.allclose(together[1:], heard(small, two[1:]), atol=1e-4)
    assert torch.equal(together, heard(build_adapter("aisfx", "random:3", {"width": "8"}), two))
    assert not torch.allclose(together, heard(build_adapter("aisfx", "random:4", {"width": "8"}), two), atol=1e-3)


def test_without_the_package_one_line_says_how_to_get_the_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("EVAR_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(network.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"^the weights of aisfx are not installed: pip install --no-deps aisfx==0\.1\.2"
    ):
        build_adapter("aisfx")


def test_a_plain_file_of_weights_is_read_and_a_misfit_is_named(small, tmp_path):
    whole = network.AisfxNet()
    named = {f"embedding_net.{key}": value for key, value in whole.state_dict().items()}
    torch.save(named | {"fc.0.0.weight": torch.zeros(1)}, tmp_path / "plain.pth")
    adapter = build_adapter("aisfx", str(tmp_path / "plain.pth"))
    assert adapter.weights_sha256 == hashlib.sha256((tmp_path / "plain.pth").read_bytes()).hexdigest()
    assert torch.equal(adapter.network.state_dict()["conv_block1.conv1.weight"], whole.conv_block1.conv1.weight)
    torch.save(small.network.state_dict(), tmp_path / "small.pth")
    with pytest.raises(UserError, match="do not fit AisfxNet: wrong shape: conv_block1"):
        build_adapter("aisfx", str(tmp_path / "small.pth"))


def test_the_published_form_is_a_pair_of_weights_and_numbers(tmp_path):
    whole = network.AisfxNet()
    named = {f"embedding_net.{key}": value for key, value in whole.state_dict().items()}
    torch.save((named, {"classes": np.int64(3)}), tmp_path / "pair.pth")
    adapter = build_adapter("aisfx", str(tmp_path / "pair.pth"))
    assert torch.equal(adapter.network.state_dict()["conv_block1.conv1.weight"], whole.conv_block1.conv1.weight)
