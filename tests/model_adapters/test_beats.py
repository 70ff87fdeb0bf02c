"""BEATs: recorded outputs of the official network, files in all their forms, lengths, tagging."""

import math

import pytest
import torch
from adapter_goldens import agrees, clips, filled, published_keys
from golden import needs_shared

from evar.errors import UserError
from model_adapters import beats as adapter_of_beats
from model_adapters.beats import Beats, random_size
from model_adapters.networks.beats import BeatsNetwork, BeatsSize, relative_buckets
from model_adapters.networks.beats_files import class_names, read_beats, tidy
from model_adapters.networks.checkpoints import unfilled
from model_adapters.registry import load_model
from model_adapters.tag_text import Tagger

TABLE = "encoder.layers.{}.self_attn.relative_attention_bias.weight"


def lengths_of(waves):
    return torch.full((len(waves),), waves.shape[1])


@pytest.fixture(scope="module")
def small():
    return Beats(weights="random:3", depth=2, embed_dim=64)


@pytest.fixture(scope="module")
def noise():
    return 0.1 * torch.randn(3, 16000, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def saved(small, tmp_path):
    """Return a function that writes a file in the published form; what it is given changes the tensors' names."""

    def write(rename=lambda name: name, drop=(), **beside):
        state = {rename(k): v for k, v in small.network.state_dict().items() if k not in drop}
        state |= beside.pop("more", {})
        torch.save({"cfg": {"deep_norm": True, "max_distance": 800}, "model": state} | beside, tmp_path / "beats.pt")
        return str(tmp_path / "beats.pt")

    return write


@needs_shared
def test_names_and_shapes_are_the_published_ones():
    network = unfilled(lambda: BeatsNetwork(BeatsSize()))
    ours = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    published = published_keys("beats_openbeats")
    assert ours == {name: shape for name, shape in published.items() if not name.endswith("_pad.weight")}
    assert sum(p.numel() for p in network.parameters()) == 90311792
    renamed = tidy({name: torch.zeros(()).expand(shape) for name, shape in published_keys("beats").items()})
    assert {name: list(tensor.shape) for name, tensor in renamed.items()} == ours


@pytest.fixture(scope="module")
def recorded():
    """Return the adapter at its published size, with the recipe's weights."""
    network = unfilled(lambda: BeatsNetwork(BeatsSize())).eval()
    state = network.state_dict()
    tables = [name for name in state if "relative" in name]
    values = filled({name: tensor for name, tensor in state.items() if name not in tables[1:]})
    network.load_state_dict(values | dict.fromkeys(tables, values[tables[0]]))
    adapter = Beats(weights="random", depth=1, embed_dim=64)
    adapter.network = network
    return adapter


@needs_shared
@pytest.mark.parametrize("seconds", [1, pytest.param(10, marks=pytest.mark.slow)])  # 10 s reach the widening buckets
def test_recorded_outputs(recorded, seconds):
    waves = clips(16000, seconds)
    with torch.inference_mode():
        tokens = recorded.network(recorded.log_mel(waves)[:, 0].transpose(1, 2))
    agrees(f"beats.tokens.{seconds}s", tokens, atol=1e-4)
    # Recorded is the deviation of the population, which of so few numbers differs from the sample's.
    agrees(f"beats.emb.{seconds}s", tokens.mean(1), atol=5e-4)


def test_buckets_by_the_formula():
    offsets = torch.arange(-1000, 1001)
    ours = relative_buckets(offsets, 320, 800).tolist()
    for offset, bucket in zip(offsets.tolist(), ours, strict=True):
        d = abs(offset)
        expected = d if d < 80 else min(159, 80 + int(math.log(d / 80) / math.log(800 / 80) * 80 + 1e-6))
        assert bucket == expected + (160 if offset > 0 else 0)


def test_positions_bias_is_the_table_at_key_minus_query(small):
    encoder = small.network.encoder
    bias = encoder.position_bias(7)
    table = encoder.layers[0].self_attn.relative_attention_bias.weight
    assert bias.shape == (1, 7, 7)
    for query in range(7):
        for key in range(7):
            bucket = abs(key - query) + (160 if key > query else 0)
            assert bias[0, query, key] == table[bucket, 0]


def test_alone_and_in_a_batch_and_twice_are_the_same(small, noise, monkeypatch):
    with torch.inference_mode():
        all_at_once = small.embed(noise, lengths_of(noise))
        assert torch.equal(all_at_once, small.embed(noise, lengths_of(noise)))
        alone = torch.cat([small.embed(w[None], lengths_of(w[None])) for w in noise])
        assert torch.allclose(all_at_once, alone, atol=1e-4)
        frames, seconds = small.embed_frames(noise, lengths_of(noise))
    assert frames.shape == (3, 98 // 16, 64) and seconds == pytest.approx(0.16)
    assert torch.allclose(frames.mean(1), all_at_once, atol=1e-6)
    assert torch.allclose(small.encode(small.log_mel(noise)), all_at_once, atol=1e-5)  # with gradients: in one piece


@pytest.mark.parametrize("seconds", [0.01, 0.1, 1.0, 60.0])
def test_silence_of_any_length(small, seconds):
    waves = torch.zeros(1, int(seconds * 16000))
    with torch.inference_mode():
        assert small.embed(waves, lengths_of(waves)).isfinite().all()


def test_chunks_are_heard_each_for_itself(noise):
    adapter = Beats(weights="random", depth=1, embed_dim=64, long_audio="chunks")
    whole = Beats(weights="random", depth=1, embed_dim=64)
    wave = noise[:1].repeat(1, 12)
    with torch.inference_mode():
        log_mel = adapter.log_mel(wave)
        pieces = [whole.frames_of(log_mel[..., :992]), whole.frames_of(log_mel[..., 992:])]
        assert torch.allclose(adapter.frames_of(log_mel), torch.cat(pieces, 1), atol=1e-5)
        assert torch.allclose(adapter.embed(noise, lengths_of(noise)), whole.embed(noise, lengths_of(noise)))
    assert "chunks" in adapter.long_audio


def test_gradients_reach_every_weight(noise):
    adapter = Beats(weights="random", depth=1, embed_dim=64).train()
    adapter.encode(adapter.log_mel(noise)).square().sum().backward()
    without = [name for name, p in adapter.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert without in ([], ["network.encoder.layers.0.self_attn.k_proj.bias"])  # the softmax takes it out again


def test_files_in_every_published_form_give_the_same(small, saved, noise):
    first, second = "encoder.pos_conv.0.weight_g", "encoder.pos_conv.0.weight_v"
    newer = {
        first: "encoder.pos_conv.0.parametrizations.weight.original0",
        second: "encoder.pos_conv.0.parametrizations.weight.original1",
    }
    pads = {"patch_embedding_pad.weight": torch.zeros(1, 1, 16, 16), "fbank.window": torch.zeros(400)}
    with torch.inference_mode():
        expected = small.embed(noise, lengths_of(noise))
        for file in (
            lambda: saved(),
            lambda: saved(lambda name: newer.get(name, name), more=pads),
            lambda: saved(lambda name: "encoder.beats." + name),
            lambda: saved(drop=[TABLE.format(1)]),
        ):
            adapter = Beats(weights=file())
            assert torch.equal(adapter.embed(noise, lengths_of(noise)), expected)
            assert len(adapter.weights_sha256) == 64 and not hasattr(adapter, "class_names")


def test_a_fine_tuned_file_is_a_tagger_with_the_files_own_order(small, saved, noise):
    weight, bias = torch.randn(3, 64, generator=torch.Generator().manual_seed(1)), torch.tensor([0.1, 0.2, 0.3])
    labels = {0: "/m/0bt9lr", 1: "/m/09x0r", 2: "something else"}
    path = saved(more={"predictor.weight": weight, "predictor.bias": bias}, label_dict=labels)
    adapter = load_model("beats", path).adapter
    assert isinstance(adapter, Tagger) and not isinstance(small, Tagger)  # what tag_text asks
    assert adapter.class_names == ("Dog", "Speech", "something else")
    with torch.inference_mode():
        expected = (small.embed(noise, lengths_of(noise)) @ weight.T + bias).sigmoid()
        assert torch.allclose(adapter.tag_probabilities(noise, lengths_of(noise)), expected, atol=1e-6)
    # A conversion to safetensors has no dictionary: it is heard, and tags nothing.
    nameless = Beats(weights=saved(more={"predictor.weight": weight, "predictor.bias": bias}))
    assert torch.equal(nameless.embed(noise, lengths_of(noise)), adapter.embed(noise, lengths_of(noise)))
    assert not isinstance(nameless, Tagger)
    with pytest.raises(UserError, match="no label_dict that names"):
        nameless.tag_probabilities(noise, lengths_of(noise))
    with pytest.raises(UserError, match="does not number its outputs: it has 'Dog'"):
        class_names({"Dog": 0}, 1)
    with pytest.raises(UserError, match="does not name output 1"):
        class_names({0: "/m/09x0r"}, 2)
    with pytest.raises(UserError, match="no tagging head"):
        small.tag_probabilities(noise, lengths_of(noise))


def test_the_files_settings_are_kept(small, saved):
    cfg = {"deep_norm": False, "max_distance": 1280, "fbank_mean": 11.0, "fbank_std": 3.0}
    file = read_beats(saved(cfg=cfg))
    assert (file.size.deep_norm, file.size.alpha, file.size.max_distance) == (False, 1.0, 1280)
    adapter = Beats(weights=saved(cfg=cfg))
    assert adapter.state() == {"norm_stats": [11.0, 3.0]} and adapter.skeleton() is None
    assert Beats(weights=saved(cfg=cfg), norm_stats="1,2").norm_stats == (1.0, 2.0)
    assert read_beats(saved(cfg={"fbank_mean": None, "fbank_std": 3.0})).norm_stats is None
    with pytest.raises(UserError, match=r"that are no numbers \('loud', 3.0\)"):
        read_beats(saved(cfg={"fbank_mean": "loud", "fbank_std": 3.0}))


def test_the_skeleton_takes_its_tensors(saved, noise):
    path = saved(cfg={"fbank_mean": 11.0, "fbank_std": 3.0})
    adapter = Beats(weights=path)
    skeleton = adapter.skeleton()
    other = load_model(skeleton.model, "random:9", skeleton.options).adapter
    other.load_state_dict(adapter.state_dict())
    with torch.inference_mode():
        assert torch.equal(other.embed(noise, lengths_of(noise)), adapter.embed(noise, lengths_of(noise)))


def test_what_is_wrong_is_said_in_one_line(saved, tmp_path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    for call, message in (
        (lambda: Beats(weights=str(tmp_path / "other.pt")), "not those of BEATs: patch_embedding.weight not among"),
        (lambda: Beats(weights=saved(cfg={"layer_norm_first": True})), "layer_norm_first"),
        (lambda: Beats(weights=saved(more={TABLE.format(1): torch.ones(320, 1)})), "a table of relative positions"),
        (lambda: Beats(weights=saved(drop=["layer_norm.bias"])), "missing: layer_norm.bias"),
        (lambda: Beats(weights=saved(drop=[TABLE.format(0)])), "incomplete, or of another form"),
        (lambda: Beats(weights="random", long_audio="half"), "long_audio must be"),
        (lambda: random_size(0, 64), "depth"),
    ):
        with pytest.raises(UserError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_random_weights_are_seeded_and_leave_the_callers_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    a, b, c = (Beats(weights=w, depth=1, embed_dim=64) for w in ("random", "random:0", "random:1"))
    assert torch.equal(torch.rand(2), expected)
    ours, again, other = (x.network.encoder.pos_conv[0].weight_v for x in (a, b, c))
    assert torch.equal(ours, again) and not torch.equal(ours, other)
    assert adapter_of_beats.ADAPTER is Beats and c.weights_sha256 == "random:1"
