"""ATST, CED and Dasheng: recorded values of the official code; lengths, batches, checkpoints, two stages."""

import itertools
import pickle

import pytest
import torch
from adapter_goldens import agrees, clips, filled, published_keys
from golden import needs_shared
from hypothesis import given, settings
from hypothesis import strategies as st

from evar import audioset
from evar.errors import UserError
from evar.finetune_model import two_stage
from model_adapters.atst_clip import ATSTClip
from model_adapters.atst_frame import ATSTFrame
from model_adapters.base import EmbedsFrames
from model_adapters.ced import CED
from model_adapters.dasheng import Dasheng
from model_adapters.networks.checkpoints import read_checkpoint
from model_adapters.registry import build_adapter, load_model
from model_adapters.tag_text import Tagger

SMALL = [
    ("ced", {"size": "tiny", "depth": "1"}),
    ("dasheng", {"depth": "1"}),
    ("atst_clip", {"depth": "1"}),
    ("atst_frame", {"depth": "1"}),
]
NAMES = [name for name, _ in SMALL]


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def small():
    return {name: build_adapter(name, "random", options) for name, options in SMALL}


@pytest.fixture(scope="module")
def recipe_blocks():
    """Tensors of the recipe by name: ATST's and Dasheng's blocks are called and shaped alike."""
    made = {}

    def fill(module):
        wanted = module.state_dict()
        new = {k: v for k, v in wanted.items() if k not in made or made[k].shape != v.shape}
        made.update(filled(new))
        module.load_state_dict({k: made[k] for k in wanted})

    return fill


def embed(model, waveforms):
    return model.embed(waveforms, torch.full((len(waveforms),), waveforms.shape[1]))


def noise(seconds, batch=2, seed=0):
    return torch.randn(batch, int(16000 * seconds), generator=torch.Generator().manual_seed(seed)) * 0.1


# Recorded values


def same_keys(module, published, besides=()):
    ours = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    assert ours == {name: shape for name, shape in published.items() if not name.startswith(tuple(besides) or ("\0",))}


@needs_shared
def test_atst_clip_equals_the_recorded_values(recipe_blocks):
    model = ATSTClip("random", max_seconds=0)
    same_keys(model.encoder, published_keys("atst_clip_base"))
    recipe_blocks(model.encoder)
    for seconds in (2, 10):
        agrees(f"atst_clip.emb.{seconds}s", embed(model, clips(16000, seconds)))


@needs_shared
def test_atst_frame_equals_the_recorded_values(recipe_blocks):
    model = ATSTFrame("random")
    same_keys(model.encoder, published_keys("atst_frame_base"))
    recipe_blocks(model.encoder)
    for seconds in (2, 10):
        agrees(f"atst_frame.emb.{seconds}s", embed(model, clips(16000, seconds)))


@needs_shared
def test_dasheng_equals_the_recorded_values(recipe_blocks):
    model = Dasheng("random")
    same_keys(model.encoder, published_keys("dasheng_base"), besides=("front_end.",))
    recipe_blocks(model.encoder)
    for seconds in (2, 10):
        agrees(f"dasheng_base.mean.{seconds}s", embed(model, clips(16000, seconds)))


@needs_shared
def test_ced_equals_the_recorded_values():
    model = CED("random")
    published = published_keys("ced_base_hf")
    head = {"outputlayer.1.weight": [527, 768], "outputlayer.1.bias": [527]}  # recorded with ten classes
    same_keys(model.network, published | head)
    model.network.load_state_dict(filled(model.network.state_dict()))
    agrees("ced_base.emb.2s", embed(model, clips(16000, 2)))
    agrees("ced_base.emb.30s.single_item0", embed(model, clips(16000, 30)[:1]))


@needs_shared
@pytest.mark.slow
def test_recorded_values_of_half_a_minute_and_the_published_fault(recipe_blocks):
    model = CED("random")
    model.network.load_state_dict(filled(model.network.state_dict()))
    agrees("ced_base.emb.10s", embed(model, clips(16000, 10)))
    right = embed(model, clips(16000, 30))
    agrees("ced_base.emb.30s.single_item0", right[:1])
    model.network.encoder.split_order = True
    mixed = embed(model, clips(16000, 30))
    assert (mixed - right)[0].abs().max().item() == pytest.approx(0.33, abs=0.005)  # ADAPTERS 0.8
    for name, other in (
        ("atst_clip.emb", ATSTClip("random", max_seconds=0)),
        ("atst_frame.emb", ATSTFrame("random")),
        ("dasheng_base.mean", Dasheng("random")),
    ):
        recipe_blocks(other.encoder)
        agrees(f"{name}.30s", embed(other, clips(16000, 30)))


# Long and short clips, batches


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seconds", [0.001, 0.1, 60])
def test_any_length_and_silence(small, name, seconds):
    found = embed(small[name], torch.zeros(1, int(16000 * seconds)))
    assert found.shape == (1, small[name].embedding_dim)
    assert found.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seconds", [1, 11])
def test_a_clip_alone_equals_the_clip_in_a_batch(small, name, seconds):
    x = torch.cat([noise(seconds), clips(16000, seconds, 1), torch.zeros(1, 16000 * seconds)])
    together = embed(small[name], x)
    torch.testing.assert_close(together, torch.cat([embed(small[name], c[None]) for c in x]), atol=1e-4, rtol=0)
    assert torch.equal(together, embed(small[name], x))


@pytest.mark.parametrize("name", ["ced", "dasheng", "atst_frame"])
def test_frames_are_in_step_with_the_clip(small, name):
    model = small[name]
    assert isinstance(model, EmbedsFrames)
    for seconds in (0.1, 2, 23.37):
        frames, step = model.embed_frames(noise(seconds), torch.tensor([1, 1]))
        assert frames.shape[0::2] == (2, model.embedding_dim)
        assert abs(frames.shape[1] * step - seconds) < 0.2  # patches that the ends of pieces cut are left out


def test_ced_pads_the_last_piece_after_the_norm_and_dasheng_does_not(small):
    ced, dasheng = (small[name] for name in ("ced", "dasheng"))
    x = torch.randn(2, 1, 64, 1012 + 100)
    pieces = [x[..., :1012], torch.nn.functional.pad(x[..., 1012:], (0, 912))]
    torch.testing.assert_close(ced.encode(x), torch.stack([ced.encode(p) for p in pieces]).mean(0), atol=1e-4, rtol=0)
    first, rest = dasheng.encode(x[..., :1008]), dasheng.encode(x[..., 1008:])
    torch.testing.assert_close(dasheng.encode(x), (first * 252 + rest * 26) / 278, atol=1e-4, rtol=0)


@settings(max_examples=6, deadline=None)
@given(batch=st.integers(1, 4), whole=st.integers(1, 2), rest=st.integers(0, 1011))
def test_the_published_order_reads_pieces_of_other_clips(small, batch, whole, rest):
    """The fault, stated with lists: encoded in the order (piece, clip), read back as (clip, piece)."""
    model, encoder = small["ced"], small["ced"].network.encoder
    x = torch.arange(batch)[:, None, None, None] + torch.randn(batch, 1, 64, whole * 1012 + rest)
    pieces = [x[..., begin : begin + 1012] for begin in range(0, x.shape[3], 1012)]
    if len(pieces) > 1 and not rest:
        pieces = pieces[:-1]
    vectors = [model.encode(torch.nn.functional.pad(p, (0, 1012 - p.shape[3]))) for p in pieces]
    if len(pieces) == 1 and not rest and whole == 1:
        vectors = [model.encode(x)]
    queue = list(itertools.chain.from_iterable(v.unbind(0) for v in vectors))
    expected = [torch.stack(queue[b * len(pieces) : (b + 1) * len(pieces)]).mean(0) for b in range(batch)]
    encoder.split_order = True
    try:
        found = model.encode(x)
    finally:
        encoder.split_order = False
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=0)
    if batch == 1 and rest:
        torch.testing.assert_close(found, model.encode(x), atol=1e-4, rtol=0)


def test_atst_clip_hears_the_middle_twelve_seconds(small):
    x = noise(14, batch=1)
    torch.testing.assert_close(embed(small["atst_clip"], x), embed(small["atst_clip"], x[:, 16000 : 13 * 16000]))
    whole = build_adapter("atst_clip", "random", {"depth": "1", "max_seconds": "0"})
    assert not torch.allclose(embed(whole, x), embed(small["atst_clip"], x))
    assert "12 s" in small["atst_clip"].long_audio
    assert "12 s" not in whole.long_audio


def test_atst_clips_token_average_by_chunk_or_as_published():
    model = ATSTClip("random", depth=1, max_seconds=0, token_average="chunk")
    x = torch.randn(1, 1, 64, 601 + 301)
    first, rest = model.encode(x[..., :601]), model.encode(x[..., 601:])
    torch.testing.assert_close(model.encode(x), (first + rest) / 2)
    model.token_average = "reference"
    first[:, 768:] *= 150 / 225  # 150 patches in the chunk, 225 from its beginning to the end
    torch.testing.assert_close(model.encode(x), (first + rest) / 2)
    torch.testing.assert_close(
        model.encode(x[..., :-1]), model.encode(x[..., :601]) * torch.where(torch.arange(1536) < 768, 1.0, 150 / 225)
    )  # 300 frames more do not count as a chunk, but in the divisor


def test_many_clips_pass_in_pieces_with_the_same_result(small, monkeypatch):
    x = noise(2, batch=5)
    whole = embed(small["ced"], x)
    monkeypatch.setattr("model_adapters.networks.audio_vit._CPU_NUMBERS", 1)
    torch.testing.assert_close(embed(small["ced"], x), whole, atol=1e-5, rtol=0)


# Tagging


def test_ced_is_a_tagger_of_audiosets_classes(small):
    model, x = small["ced"], noise(12)
    assert isinstance(model, Tagger)
    assert model.class_names == tuple(audioset.display_names())
    p = model.tag_probabilities(x, torch.tensor([1, 1]))
    assert p.shape == (2, 527)
    assert ((p > 0) & (p < 1)).all()


def test_ced_without_its_head_is_no_tagger(tmp_path, small):
    torch.save({k: v for k, v in small["ced"].network.state_dict().items() if "output" not in k}, tmp_path / "w.pth")
    model = CED(str(tmp_path / "w.pth"))
    torch.testing.assert_close(embed(model, noise(1)), embed(small["ced"], noise(1)))
    assert not isinstance(model, Tagger)
    with pytest.raises(UserError, match="no tagging head"):
        model.tag_probabilities(noise(1), torch.tensor([1, 1]))


# Fine-tuning


@pytest.mark.parametrize("name", NAMES)
def test_two_stages_and_gradients(small, name):
    model, x = small[name], noise(1)
    assert two_stage(model)
    log_mel = model.log_mel(x)
    assert log_mel.shape == (2, 1, 64, 101)
    torch.testing.assert_close(model.encode(log_mel), embed(model, x))
    with torch.enable_grad():
        model.train()
        embed(model, x).square().mean().backward()
    model.eval()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    model.zero_grad(set_to_none=True)


def test_training_leaves_the_batch_norms_statistics_alone(small):
    before = small["ced"].network.encoder.init_bn.running_mean.clone()
    small["ced"].train().log_mel(noise(1))
    small["ced"].eval()
    assert torch.equal(before, small["ced"].network.encoder.init_bn.running_mean)


@pytest.mark.parametrize("name", NAMES)
def test_a_skeleton_takes_the_models_tensors(small, name):
    skeleton = small[name].skeleton()
    other = load_model(skeleton.model, "random:1", skeleton.options).adapter
    assert not torch.allclose(embed(other, noise(1)), embed(small[name], noise(1)))
    other.load_state_dict(small[name].state_dict())
    torch.testing.assert_close(embed(other, noise(1)), embed(small[name], noise(1)))


# Checkpoints


class Settings:
    """A training script's settings, which no reader of weights should build."""

    def __reduce__(self):
        return (print, ("code of the file was run",))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {
            "teacher": {f"module.backbone.{k}": v for k, v in s.items()} | {"module.head.weight": torch.ones(1)}
        },
        lambda s: {
            "state_dict": {
                f"model.{who}.encoder.{k}": v + (who == "student")
                for who in ("student", "teacher")
                for k, v in s.items()
            },
            "hyper_parameters": Settings(),
            "callbacks": {Settings: [1]},
        },
    ],
)
def test_forms_of_atst_checkpoints(small, tmp_path, capsys, wrap):
    torch.save(wrap(small["atst_frame"].encoder.state_dict()), tmp_path / "w.ckpt")
    model = ATSTFrame(str(tmp_path / "w.ckpt"))
    assert len(model.weights_sha256) == 64
    torch.testing.assert_close(embed(model, noise(1)), embed(small["atst_frame"], noise(1)))
    assert capsys.readouterr().out == ""


def test_nothing_in_a_training_checkpoint_is_run(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2)}, "x": [Settings(), pickle.dumps(1)]}, tmp_path / "w.ckpt")
    state, _ = read_checkpoint(tmp_path / "w.ckpt")
    assert state["a"].tolist() == [1, 1]


@pytest.mark.parametrize(("cls", "content"), [(ATSTClip, {"norm.weight": torch.ones(1)}), (ATSTFrame, {"epoch": 3})])
def test_other_files_are_no_atst(cls, content, tmp_path):
    torch.save(content, tmp_path / "w.ckpt")
    with pytest.raises(UserError, match=r"not those of this ATST model|no weights") as caught:
        cls(str(tmp_path / "w.ckpt"))
    assert "\n" not in str(caught.value)


def test_a_cut_file_is_named_as_such(tmp_path, small):
    torch.save(small["atst_clip"].encoder.state_dict(), tmp_path / "w.ckpt")
    whole = (tmp_path / "w.ckpt").read_bytes()
    (tmp_path / "w.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is cut: its end is missing"):
        ATSTClip(str(tmp_path / "w.ckpt"))


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_dashengs_names_of_the_package_and_of_transformers(small, tmp_path, prefix):
    state = {f"{prefix}{k}": v for k, v in small["dasheng"].encoder.state_dict().items()}
    if prefix:
        state = {k.replace("init_bn.1.", "init_bn."): v for k, v in state.items()}
    torch.save(
        {"model": state | {"front_end.0.spectrogram.window": torch.ones(512)}, "config": {"depth": 1}},
        tmp_path / "w.pt",
    )
    model = Dasheng(str(tmp_path / "w.pt"))
    torch.testing.assert_close(embed(model, noise(1)), embed(small["dasheng"], noise(1)))


@pytest.mark.parametrize("cls", [CED, Dasheng])
def test_other_files_are_neither_ced_nor_dasheng(cls, tmp_path):
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="not among them") as caught:
        cls(str(tmp_path / "w.pth"))
    assert "\n" not in str(caught.value)


def test_ced_and_dasheng_are_told_apart_by_their_patches(small, tmp_path):
    """All names but one are the same, and in the hub's form that one is, too."""
    torch.save(small["ced"].network.state_dict(), tmp_path / "ced.pth")
    state = {f"encoder.{k}": v for k, v in small["dasheng"].encoder.state_dict().items()}
    state = {k.replace("init_bn.1.", "init_bn."): v for k, v in state.items()}
    torch.save(state, tmp_path / "dasheng.pth")
    with pytest.raises(UserError, match=r"in '.*ced.pth' are not those of Dasheng.*those of CED: .*as model 'ced'"):
        Dasheng(str(tmp_path / "ced.pth"))
    with pytest.raises(UserError, match=r"dasheng.pth' are not those of CED.*of Dasheng: .*as model 'dasheng'"):
        CED(str(tmp_path / "dasheng.pth"))


@pytest.mark.parametrize("name", ["ced", "dasheng"])
def test_without_weights_and_network_one_line_says_so(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="mispeech/") as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_random_weights_are_seeded_and_leave_the_global_generator_alone(small, name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = load_model(name, "random", dict(SMALL)[name]).adapter
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(embed(again, noise(1)), embed(small[name], noise(1)))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("ced", {"size": "huge"}, "--size"),
        ("dasheng", {"size": "2B"}, "--size"),
        ("atst_clip", {"token_average": "no"}, "--token_average"),
        ("atst_clip", {"max_seconds": "-1"}, "--max_seconds"),
        ("atst_frame", {"depth": "0"}, "--depth"),
    ],
)
def test_wrong_options_give_one_line(name, options, words):
    with pytest.raises(UserError, match=words) as caught:
        load_model(name, "random", options)
    assert "\n" not in str(caught.value)
