"""M2D: golden vectors of every published form, then lengths, batches, geometry, refusals on small random networks."""

import zlib

import numpy as np
import pytest
import torch
from golden import arrays, golden, needs_shared
from hypothesis import given, settings
from hypothesis import strategies as st

from evar.errors import UserError
from model_adapters.m2d import M2D, random_geometry, random_network
from model_adapters.networks.m2d import M2DEncoder, flat, kept_by_patchout, resize_positions, sincos_2d, stacked
from model_adapters.networks.m2d_files import DEFAULT_NORM_STATS, geometry_of_name
from model_adapters.networks.vit import ViT, ViTSize
from model_adapters.tag_text import Tagger

TINY = ("ckpt", "m2d_vit_base-80x608p16x16-golden")
WAVES = ("w1s", "w6p08s", "w10s")


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def small(**options):
    return M2D(weights="random", depth=2, embed_dim=64, **options)


def wave(name):
    return torch.from_numpy(arrays("waveforms_16k.npz")[name])[None]


def embed(model, clips):
    return model.embed(clips, torch.full((len(clips),), clips.shape[1]))


def close(ours, stored, atol=1e-4):
    assert ours.shape == stored.shape
    np.testing.assert_allclose(ours, stored, atol=atol, rtol=0)


@needs_shared
@pytest.mark.parametrize("name", WAVES)
def test_stacked_features(name):
    model, stored = M2D(weights=str(golden(*TINY))), arrays("m2d_tiny_80x608_stack.npz")
    log_mel = model.log_mel(wave(name))
    close(log_mel[0, 0], stored[f"{name}.norm"], atol=5e-4)
    close(model.frames_of(log_mel)[0], stored[f"{name}.encode"])
    close(embed(model, wave(name))[0], stored[f"{name}.scene"])
    assert model.embedding_dim == 960


@needs_shared
@pytest.mark.parametrize("name", WAVES)
def test_flat_features_and_timestamps(name):
    model, stored = M2D(weights=str(golden(*TINY)), features="flat"), arrays("m2d_tiny_80x608_flat.npz")
    close(model.tokens_of(model.log_mel(wave(name)))[0], stored[f"{name}.encode"])
    close(embed(model, wave(name))[0], stored[f"{name}.scene"])
    frames, seconds = model.embed_frames(wave(name), torch.tensor([1]))
    close(frames[0], stored[f"{name}.timestamp_emb"])
    close(torch.arange(frames.shape[1]) * seconds * 1000, stored[f"{name}.timestamps_ms"], atol=1e-2)


@needs_shared
def test_file_without_statistics_takes_the_defaults():
    model = M2D(weights=str(golden("ckpt", "m2d_vit_base-80x608p16x16-golden_enconly")))
    assert model.encoder.norm_stats.tolist() == pytest.approx(DEFAULT_NORM_STATS)
    stored = arrays("m2d_tiny_80x608_nonorm_stack.npz")
    for name in WAVES:
        close(model.frames_of(model.log_mel(wave(name)))[0], stored[f"{name}.encode"])


@needs_shared
def test_fine_tuned_form_and_its_head():
    model = M2D(weights=str(golden("ckpt", "m2d_vit_base-80x608p16x16-golden_ft")))
    for name in WAVES:
        close(model.logits(wave(name), torch.tensor([1]))[0], arrays("m2d_tiny_80x608_finetuned.npz")[f"{name}.logits"])


@needs_shared
@pytest.mark.parametrize("frames", [101, 304, 501, 608, 1001])
def test_dur_frames(frames):
    stored = arrays("m2d_tiny_runtime_options.npz")
    stack = M2D(weights=str(golden(*TINY)), dur_frames=frames)
    tokens = M2D(weights=str(golden(*TINY)), dur_frames=frames, features="flat")
    close(stack.encoder.vit.pos_embed[0], stored[f"dur{frames}.pos_embed"])
    for name in WAVES:
        close(embed(stack, wave(name))[0], stored[f"dur{frames}.{name}.scene"])
        close(embed(tokens, wave(name))[0], stored[f"dur{frames}.{name}.flat_mean"])
        assert tokens.tokens_of(tokens.log_mel(wave(name))).shape == tuple(stored[f"dur{frames}.{name}.flat_shape"])


@needs_shared
def test_layer_outputs():
    model, stored = M2D(weights=str(golden(*TINY))), arrays("m2d_tiny_runtime_options.npz")
    layers = model.encoder.chunks(model.log_mel(wave("w1s")), (0, 1))
    close(torch.stack([stacked(chunks)[0] for chunks in layers]), stored["layers.w1s"])
    close(torch.stack([flat(chunks)[0] for chunks in layers]), stored["layers_flat.w1s"])


@needs_shared
@pytest.mark.parametrize("columns", [38, 62])
def test_position_tables(columns):
    stored = arrays(f"pos_embed_m2d_base_80x{ {38: 608, 62: 1001}[columns] }.npz")["pos_embed"]
    np.testing.assert_allclose(sincos_2d(768, 5, columns), stored, atol=1e-6)


def test_position_table_check_values():
    table = sincos_2d(768, 5, 38)[0]
    assert table[2, [0, 1, 191, 192, 384, 576]].tolist() == pytest.approx(
        [0.841471, 0.8152506, 0.0001049, 0.5403023, 0, 1], abs=1e-6
    )
    assert table[190, [0, 384, 767]].tolist() == pytest.approx([-0.6435381, -0.7568025, 0.9999999], abs=1e-6)
    stretched = resize_positions(sincos_2d(768, 5, 38), 5, 62)[0]
    assert stretched[2, [0, 1, 192]].tolist() == pytest.approx([0.3394184, 0.3239964, 0.8849856], abs=1e-5)
    assert stretched[310, [0, 1, 192]].tolist() == pytest.approx([-0.6106616, -0.7357121, 0.8497562], abs=1e-5)


def synthetic(shape_of):
    """Weights by the rule of MODELS 7.5: every tensor depends on its name alone."""
    filled = {}
    for key, tensor in shape_of.items():
        r = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(tuple(tensor.shape))
        if key.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
            r = 1 + 0.1 * r
        elif key.endswith(".bias") or key == "cls_token":
            r = 0.02 * r
        else:
            r = r / np.sqrt(np.prod(tensor.shape[1:]))
        filled[key] = torch.from_numpy(r.astype(np.float32))
    return filled


@pytest.mark.parametrize(
    ("size", "patch", "seconds", "frames", "first", "mean"),
    [
        ("80x608", "16x16", 0.5, 4, None, [-1.215809, 0.819625, 1.794993, 0.274709]),
        ("80x608", "16x16", 3.2, 21, [-0.049628, -0.22501, 1.594715, -0.342886], [-0.311176, -0.103086, 1.719879]),
        ("80x200", "16x4", 3.2, 81, [-2.131022, 0.028661, 2.441804, 0.170258], [-2.325572, -0.572795, 2.360027]),
        ("80x608", "80x2", 3.2, 161, [-1.440864, 0.411312, 1.387413, -0.471932], [-1.683335, 0.525525, 1.657275]),
    ],
)
def test_other_patches_by_the_fact_sheets_numbers(size, patch, seconds, frames, first, mean):
    geometry = random_geometry(size, patch, 0)
    vit, _ = random_network(geometry, 0, depth=12, dim=768, heads=0)
    state = synthetic({k: v for k, v in vit.state_dict().items() if k != "pos_embed"})
    vit.load_state_dict(state, strict=False)
    model = small(input_size=size, patch_size=patch)
    model.encoder = M2DEncoder(vit.eval(), geometry, DEFAULT_NORM_STATS)
    t = np.arange(int(16000 * seconds)) / 16000
    noise = np.random.RandomState(0).uniform(-1, 1, len(t))
    x = 0.3 * np.sin(2 * np.pi * 440 * t) + 0.2 * np.sin(2 * np.pi * 1333 * t + 1) + 0.05 * noise
    y = model.frames_of(model.log_mel(torch.from_numpy(x.astype(np.float32))[None]))[0]
    assert len(y) == frames
    if first:
        assert y[0, :4].tolist() == pytest.approx(first, abs=1e-4)
    assert y.mean(0)[: len(mean)].tolist() == pytest.approx(mean, abs=1e-4)


@pytest.mark.parametrize(
    ("size", "patch", "frames"),
    [
        ("80x608", "16x16", [4, 7, 21, 32, 38, 52, 63, 79, 126, 188]),
        ("80x1001", "16x16", [4, 7, 21, 32, 38, 52, 62, 78, 124, 186]),
        ("80x200", "16x4", [13, 26, 81, 126, 151, 206, 251, 313, 501, 751]),
        ("80x400", "80x2", [26, 51, 161, 251, 301, 411, 501, 626, 1001, 1501]),
    ],
)
def test_number_of_time_steps(size, patch, frames):
    model = M2D(weights="random", depth=1, embed_dim=8, heads=1, input_size=size, patch_size=patch)
    for seconds, expected in zip([0.5, 1, 3.2, 5, 6, 8.2, 10, 12.5, 20, 30], frames, strict=True):
        log_mel = torch.zeros(1, 1, 80, 1 + int(seconds * 16000) // 160)
        assert model.frames_of(log_mel).shape[1] == expected


@settings(max_examples=8, deadline=None)
@given(length=st.integers(1, 150), batch=st.integers(2, 4), unit=st.sampled_from([32, 40, 48]))
def test_a_clip_alone_equals_the_clip_in_a_batch_and_its_chunks_equal_separate_clips(length, batch, unit):
    model = small(input_size=f"80x{unit}")
    log_mel = torch.randn(batch, 1, 80, length)
    together = model.frames_of(log_mel)
    alone = torch.cat([model.frames_of(clip[None]) for clip in log_mel])
    assert torch.allclose(together, alone, atol=1e-5)
    cut = torch.cat([model.frames_of(piece) for piece in log_mel.split(unit, dim=3)], dim=1)
    assert torch.allclose(together, cut, atol=1e-5)


def test_a_rest_padded_beyond_the_chunk_is_cut_back():
    model = small(input_size="80x41")
    assert model.frames_of(torch.zeros(1, 1, 80, 41 + 40)).shape[1] == 2 + 2


def test_many_clips_pass_in_pieces_with_the_same_result(monkeypatch):
    model, log_mel = small(), torch.randn(9, 1, 80, 700)
    whole = model.encode(log_mel)
    monkeypatch.setattr("model_adapters.networks.vit._CPU_NUMBERS", 100_000)
    assert torch.allclose(model.encode(log_mel), whole, atol=1e-5)


def test_the_fast_products_equal_the_plain_ones():
    model, clips = small(), torch.randn(4, 32000)
    fast = embed(model, clips)
    with torch.enable_grad():
        plain = embed(model, clips)
    assert plain.requires_grad
    assert torch.allclose(fast, plain.detach(), atol=1e-5)


def test_every_trained_parameter_gets_a_gradient():
    model = small()
    with torch.enable_grad():
        model.encode(torch.randn(2, 1, 80, 700)).square().mean().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {"encoder.vit.pos_embed"}


def test_bfloat16_stays_near_float32():
    model, clips = small(), torch.randn(2, 32000)
    exact = embed(model, clips)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = embed(model, clips).float()
    assert torch.cosine_similarity(exact, coarse).min() > 0.999


def test_random_weights_are_seeded_and_leave_the_global_generator_alone():
    clip = torch.randn(1, 16000)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = small()
    assert torch.equal(embed(first, clip), embed(small(), clip))
    other = M2D(weights="random:1", depth=2, embed_dim=64)
    assert not torch.allclose(embed(first, clip), embed(other, clip))
    assert (first.weights_sha256, other.weights_sha256) == ("random:0", "random:1")
    assert torch.equal(before, torch.get_rng_state())


def test_layers_are_concatenated():
    model, clip = small(layers="all"), torch.randn(1, 16000)
    assert model.embedding_dim == 2 * small().embedding_dim
    assert torch.allclose(embed(model, clip)[:, 320:], embed(small(), clip))


@pytest.mark.parametrize("keeps", ["marked", "unmarked"])
def test_structured_patchout_keeps_as_many_as_are_unmarked(keeps):
    for seed in range(12):
        torch.manual_seed(seed)
        kept = kept_by_patchout(3, (5, 62), 0.5, keeps)
        assert kept.shape[1] in (155, 172, 168, 124)
        assert all(len(set(row.tolist())) == kept.shape[1] for row in kept)
        if kept.shape[1] == 155:  # no rows, 31 columns: the kept patches are whole columns
            assert all(len(set((row % 62).tolist())) == 31 for row in kept)
    torch.manual_seed(0)
    assert kept_by_patchout(1, (5, 62), 0.0, keeps).shape[1] == 310


def test_patchout_acts_in_training_only_and_needs_flat_features():
    model, log_mel = small(features="flat"), torch.randn(2, 1, 80, 608)
    assert torch.equal(model.encode(log_mel, patchout=0.5), model.encode(log_mel))
    model.train()
    assert model.encode(log_mel, patchout=0.5).shape == (2, 64)
    with pytest.raises(UserError, match="--features=flat"):
        small().train().encode(log_mel, patchout=0.5)


@pytest.mark.parametrize(
    ("name", "frames", "patch", "rate", "letter", "inside"),
    [
        ("m2d_vit_base-80x608p16x16-221006-mr7_enconly", 608, (16, 16), 16000, "", False),
        ("m2d_clap_vit_base-80x1001p16x16p16kpBpTI-2025", 1001, (16, 16), 16000, "B", True),
        ("m2d_as_vit_base-80x608p16x16p32k-240413_enconly", 608, (16, 16), 32000, "", False),
        ("m2d_clap_vit_base-80x1001p16x16-240128_AS-FT_enconly", 1001, (16, 16), 16000, "", False),
        ("m2d_s_vit_base-80x512p80x2-230301", 512, (80, 2), 16000, "", False),
        ("80x512p16x16_paper", 512, (16, 16), 16000, "", False),
        ("x-80x608p16x16p16kpN-stage1", 608, (16, 16), 16000, "N", False),
    ],
)
def test_folder_names(name, frames, patch, rate, letter, inside):
    found = geometry_of_name(f"some/where/{name}/checkpoint-300.pth")
    assert found is not None
    assert (found.n_mels, found.frames, found.patch, found.sample_rate) == (80, frames, patch, rate)
    assert (found.text_encoder, found.text_inside) == (letter, inside)
    assert geometry_of_name("weights/model.pth") is None


@pytest.fixture
def file(tmp_path):
    vit = ViT(ViTSize(64, 1, 0, 128, (16, 16), 5 * 4 + 1))
    torch.save(vit.state_dict(), tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_geometry_is_inferred_or_given_and_checked(file):
    assert M2D(weights=str(file)).geometry.frames == 64
    assert M2D(weights=str(file), input_size="80x70").geometry.frames == 70
    with pytest.raises(UserError, match=r"20 positions.*--input_size") as caught:
        M2D(weights=str(file), input_size="80x608")
    assert "\n" not in str(caught.value)
    wrong = file.parent / "m2d-80x64p16x8-x"
    wrong.mkdir()
    file.rename(wrong / "w.pth")
    with pytest.raises(UserError, match="folder's name"):
        M2D(weights=str(wrong / "w.pth"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_size": "80"}, "--input_size must be two numbers"),
        ({"patch_size": "0x16"}, "--patch_size must be two numbers"),
        ({"norm_stats": "1"}, "--norm_stats must be"),
        ({"norm_stats": "1,0"}, "above 0"),
        ({"features": "both"}, "--features"),
        ({"layers": "7"}, "there is no block 7"),
        ({"layers": "last"}, "--layers"),
        ({"heads": 3}, "--heads"),
        ({"sample_rate": 8000}, "8000"),
        ({"norm_stats": "nan,1"}, "above 0"),
        ({"norm_stats": "0,inf"}, "above 0"),
        ({"heads": -1}, "--heads must be 0 or more"),
        ({"dur_frames": 3}, "less than one patch"),
        ({"dur_frames": -16}, "--dur_frames must be 0 or more"),
        ({"patchout_keeps": "none"}, "--patchout_keeps"),
    ],
)
def test_wrong_options_give_one_line(options, words):
    with pytest.raises(UserError, match=words) as caught:
        small(**options)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_named_as_such(tmp_path):
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="not those of M2D or MSM-MAE"):
        M2D(weights=str(tmp_path / "w.pth"))


def test_logits_need_a_head():
    with pytest.raises(UserError, match="no classification head"):
        small().logits(torch.zeros(1, 16000), torch.tensor([16000]))


def test_a_head_for_audioset_makes_it_a_tagger(tmp_path):
    """MODELS 7.2: the head's classes are in the order of their machine ids; it was trained with one sigmoid each."""
    model = small(features="flat")
    weight = torch.zeros(527, 64)
    bias = torch.full((527,), -9.0)
    bias[1], bias[2] = 0.0, 9.0
    norm = {"running_mean": torch.zeros(64), "running_var": torch.ones(64)}
    state = {f"module.ar.runtime.{key}": value for key, value in model.encoder.vit.state_dict().items()}
    state |= {f"module.head.norm.{key}": value for key, value in norm.items()}
    state |= {"module.head.mlp.mlp.0.weight": weight, "module.head.mlp.mlp.0.bias": bias}
    folder = tmp_path / "m2d_vit_d64-80x608p16x16-ft"
    folder.mkdir()
    torch.save(state, folder / "weights_ep69.pth")
    tagger = M2D(weights=str(folder))
    assert isinstance(tagger, Tagger)
    assert tagger.class_names[:3] == ("Firecracker", "Timpani", "Wild animals")
    found = tagger.tag_probabilities(torch.zeros(1, 16000), torch.tensor([16000]))[0]
    assert found[:3].tolist() == pytest.approx([1 / (1 + np.exp(9)), 0.5, 1 / (1 + np.exp(-9))], rel=1e-4)
    assert not isinstance(model, Tagger), "without a head there are no classes"


def test_32_khz_front_end():
    model = small(sample_rate=32000)
    assert model.sample_rate == 32000
    assert model.log_mel(torch.zeros(1, 32000)).shape == (1, 1, 80, 101)
