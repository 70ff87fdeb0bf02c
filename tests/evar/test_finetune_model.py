"""The network that is fine-tuned: head, loss, what is frozen, what an adapter cannot do, the augmentation of a step."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from audio.slow_augment import slow_mixup, slow_resize_crop, slow_spec_augment
from helpers import CountingAdapter
from torch import nn
from tuning import SMALL

from evar import ranks
from evar.audio.augment import draw_mixup, draw_resize_crop, draw_spec_augment, mixup
from evar.errors import UserError
from evar.finetune_model import FineTuned, Head, augmented, features, losses, suited, two_stage
from evar.finetune_settings import PAPER, FinetuneSettings
from model_adapters.registry import build_adapter, model_options

PLAIN = FinetuneSettings(mixup=0.0, rrc=False, freq_mask=0, time_mask=0, patchout=0.0)
SECOND = 16000


def m2d(**options):
    return build_adapter("m2d", "random", {**SMALL, "norm_stats": "-7.1,4.2", **options})


def byol_a():
    return build_adapter("byol_a", "random", {"feature_d": "16", "norm_stats": "-5,4"})


def waves(n, seconds=1.0, seed=0):
    return 0.1 * torch.randn(n, int(seconds * SECOND), generator=torch.Generator().manual_seed(seed))


def lengths_of(x):
    return torch.full((len(x),), x.shape[1])


def step(network, inputs, settings, targets=None):
    """One step of plain SGD; return the parameters' names that changed."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0)
    targets = torch.eye(3)[torch.arange(len(inputs)) % 3] if targets is None else targets
    x = features(network.adapter, inputs, lengths_of(inputs))
    losses(network(x, lengths_of(inputs), settings.patchout), targets, multi_label=False).mean().backward()
    optimiser.step()
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def test_the_head_is_batch_norm_without_affine_then_a_linear_layer_that_begins_small():
    torch.manual_seed(0)
    head = Head(400, 100)
    assert head.linear.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert abs(head.linear.weight.mean().item()) < 2e-4
    assert not head.linear.bias.any()
    assert (head.norm.affine, head.norm.eps, head.norm.momentum) == (False, 1e-5, 0.1)
    assert [name for name, _ in head.named_parameters()] == ["linear.weight", "linear.bias"]
    x = 5 + 3 * torch.randn(64, 400)
    plain = nn.BatchNorm1d(400, affine=False)
    torch.testing.assert_close(head(x), plain(x) @ head.linear.weight.T)
    torch.testing.assert_close(head.norm.running_mean, plain.running_mean)


def test_the_loss_is_a_mean_over_clips_and_classes():
    logits, targets = torch.randn(5, 4), torch.rand(5, 4)
    single, multi = torch.zeros(5), torch.zeros(5)
    for k in range(5):
        total = sum(math.exp(z) for z in logits[k].tolist())
        for z, y in zip(logits[k].tolist(), targets[k].tolist(), strict=True):
            single[k] -= y * math.log(math.exp(z) / total) / 4
            share = 1 / (1 + math.exp(-z))
            multi[k] -= (y * math.log(share) + (1 - y) * math.log(1 - share)) / 4
    torch.testing.assert_close(losses(logits, targets, multi_label=False), single)
    torch.testing.assert_close(losses(logits, targets, multi_label=True), multi)


def test_one_hot_targets_give_cross_entropy_divided_by_the_number_of_classes():
    logits, labels = torch.randn(8, 50), torch.arange(8)
    ours = losses(logits, nn.functional.one_hot(labels, 50).float(), multi_label=False).mean()
    torch.testing.assert_close(ours, nn.functional.cross_entropy(logits, labels) / 50)


def test_everything_is_trained_but_positions_and_what_the_settings_freeze():
    def changed(**settings):
        network = FineTuned(m2d(), 3)
        network.freeze(replace(PLAIN, **settings))
        network.learning()
        return step(network, waves(6), PLAIN), network

    every, network = changed()
    parameters = {name for name, _ in network.named_parameters()}
    assert parameters - every == {"adapter.encoder.vit.pos_embed"}
    patches = {f"adapter.encoder.vit.patch_embed.proj.{kind}" for kind in ("weight", "bias")}
    assert every - changed(freeze_patch_embed=True)[0] == patches
    head_alone, _ = changed(freeze_encoder=True)
    assert {name.split(".")[0] for name in head_alone} == {"head"}
    with pytest.raises(UserError, match="--freeze_patch_embed: ByolA has no patch embedding"):
        FineTuned(byol_a(), 3).freeze(replace(PLAIN, freeze_patch_embed=True))


def test_the_encoder_trains_with_its_dropout_and_batch_norms_but_not_when_it_is_frozen():
    network = FineTuned(byol_a(), 3)
    network.learning()
    assert network.adapter.training and network.adapter.network.fc[2].training
    assert "adapter.network.features.1.running_mean" in step(network, waves(6), PLAIN)
    assert not torch.equal(*(network(torch.ones(6, 1, 64, 104), torch.ones(6)) for _ in range(2))), "dropout"
    network.freeze(replace(PLAIN, freeze_encoder=True))
    network.learning()
    assert network.head.training and not network.adapter.training
    assert not any(name.startswith("adapter") for name in step(network, waves(6), PLAIN))


def test_an_adapter_without_parameters_trains_the_head_alone():
    network = FineTuned(build_adapter("log_mel_stats"), 3)
    network.learning()
    assert not two_stage(network.adapter)
    assert {name.split(".")[0] for name in step(network, waves(6), PLAIN)} == {"head"}


def test_an_adapter_that_shuts_gradients_out_is_an_error_and_not_a_frozen_encoder():
    class Shut(CountingAdapter):
        def __init__(self):
            super().__init__(sample_rate=SECOND)
            self.gain = nn.Parameter(torch.ones(()))

        @torch.no_grad()
        def embed(self, waveforms, lengths):
            return super().embed(waveforms, lengths)

    network = FineTuned(Shut(), 3)
    network.learning()
    with pytest.raises(UserError, match=r"without gradient .* --freeze_encoder=true"):
        network(waves(4), torch.ones(4))
    network.freeze(replace(PLAIN, freeze_encoder=True))
    assert network(waves(4), torch.ones(4)).requires_grad


def test_logits_are_float32_under_autocast():
    network = FineTuned(m2d(), 3)
    x = features(network.adapter, waves(4), lengths_of(waves(4)))
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x, torch.ones(4))
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float()), "bfloat16 would tie clips that are to be ranked"


@pytest.mark.parametrize(
    ("model", "options", "preset", "changes"),
    [
        ("m2d", SMALL, "esc50", {}),
        ("byol_a", {"feature_d": "16"}, "esc50", {"patchout": 0.0, "freeze_patch_embed": False, "dur_frames": 0}),
        ("byol_a", {"feature_d": "16"}, "as2m", {"patchout": 0.0, "short_clips": "silence", "dur_frames": 0}),
        (
            "log_mel_stats", {}, "as2m",
            {"rrc": False, "freq_mask": 0, "time_mask": 0, "patchout": 0.0, "short_clips": "silence", "dur_frames": 0},
        ),
    ],
)  # fmt: skip
def test_what_a_model_cannot_do_is_left_out_of_a_preset_and_said(model, options, preset, changes):
    adapter = build_adapter(model, None if model == "log_mel_stats" else "random", options)
    settings, said = suited(PAPER[preset], adapter, model_options(model))
    assert settings == replace(PAPER[preset], **changes)
    assert bool(said) == bool(changes)
    assert suited(settings, adapter, model_options(model))[0] == settings


def slow_inputs(adapter, x, targets, settings, on_log_mel):
    """One clip after the other, in the order in which a step draws: mixup, masks, crops."""
    bands, frames = adapter.log_mel(x).shape[2:]
    mix = draw_mixup(len(x), settings.mixup)
    spans = draw_spec_augment(bands, frames, settings.freq_mask, settings.time_mask)
    boxes = draw_resize_crop(len(x), bands, frames).boxes.tolist()
    if not on_log_mel:
        x, targets = slow_mixup(x, targets, mix.share, mix.partner)
    y = torch.cat([adapter.log_mel(clip[None]) for clip in x])
    if on_log_mel:
        y, targets = slow_mixup(y, targets, mix.share, mix.partner)
    y = slow_spec_augment(y, range(*spans.bands.tolist()), range(*spans.frames.tolist()))
    return slow_resize_crop(y, boxes), targets


@pytest.mark.parametrize("short_clips", ["silence", "reference"])
def test_a_steps_augmentation_is_the_published_order_clip_by_clip(short_clips):
    """Waveforms are mixed, or with the AudioSet preset's short clips log-mels; masks; crops."""
    adapter, x, targets = m2d(), waves(5), torch.eye(5)
    settings = FinetuneSettings(mixup=0.5, freq_mask=30, time_mask=48, short_clips=short_clips)
    torch.manual_seed(3)
    ours = augmented(adapter, x, lengths_of(x), targets, 5, settings)
    torch.manual_seed(3)
    wanted, wanted_targets = slow_inputs(adapter, x, targets, settings, short_clips == "reference")
    torch.testing.assert_close(ours.x, wanted, rtol=0, atol=2e-4)
    torch.testing.assert_close(ours.targets, wanted_targets)
    assert (ours.targets < 1).all(), "every clip was mixed"
    torch.manual_seed(3)
    plain = augmented(adapter, x, lengths_of(x), targets, 5, PLAIN)
    assert torch.equal(plain.x, adapter.log_mel(x)) and torch.equal(plain.targets, targets)


@pytest.mark.parametrize("long_audio", ["seeded", "chunks"])
@pytest.mark.parametrize("name", ["msclap_2022", "msclap_2023", "pengi"])
def test_models_that_repeat_short_clips_do_so_in_fine_tuning(name, long_audio):
    """Of 9 s at most; a window is of 5 or 7 s."""
    small = {"width": "2"} if name == "msclap_2022" else {"depth": "1", "embed_dim": "16"}
    adapter = build_adapter(name, "random", small | {"long_audio": long_audio})
    rate = adapter.sample_rate
    x = 0.1 * torch.randn(3, 9 * rate, generator=torch.Generator().manual_seed(4))
    for width, lengths in ((9, (2, 9, 1)), (3, (2, 3, 1))):
        real = torch.tensor(lengths) * rate
        clips = torch.where(torch.arange(width * rate) < real[:, None], x[:, : width * rate], 0)
        with torch.no_grad():
            expected = adapter.embed(clips, real)
            found = adapter.encode(features(adapter, clips, real))
            assert torch.allclose(found, expected, atol=1e-4), (width, lengths)
            assert not torch.allclose(adapter.encode(adapter.log_mel(clips))[0], expected[0], atol=1e-2)
    assert features(adapter, x[:0], torch.zeros(0, dtype=torch.int64)).shape[0] == 0


def test_of_waveforms_alone_only_mixup_and_the_longer_length_of_a_pair():
    adapter, x, targets = build_adapter("log_mel_stats"), waves(4), torch.eye(4)
    lengths = torch.tensor([16000, 4000, 8000, 12000])
    torch.manual_seed(0)
    ours = augmented(adapter, x, lengths, targets, 4, FinetuneSettings(mixup=0.5))
    torch.manual_seed(0)
    mix = draw_mixup(4, 0.5)
    wanted, _ = slow_mixup(x, targets, mix.share, mix.partner)
    torch.testing.assert_close(ours.x, wanted)
    assert ours.lengths.tolist() == [max(lengths[k], lengths[p]) for k, p in enumerate(mix.partner)]


def test_ranks_augment_their_share_with_the_whole_batchs_draws(monkeypatch):
    """Five clips on two ranks, 3 and 2, here one after the other in one process."""
    adapter, x, targets = m2d(), waves(5), torch.eye(5)
    settings = FinetuneSettings(mixup=0.5, freq_mask=30, time_mask=48)
    torch.manual_seed(1)
    whole = augmented(adapter, x, lengths_of(x), targets, 5, settings)
    everyone = {x.shape[1:]: x, lengths_of(x).shape[1:]: lengths_of(x), targets.shape[1:]: targets}

    def gather(own):
        return everyone[own.shape[1:]]

    monkeypatch.setattr("evar.finetune_model.gathered", gather)
    monkeypatch.setattr("evar.finetune_model.mixup", lambda x, targets, draws: mixup(x, targets, draws, gather))
    for rows in (slice(0, 3), slice(3, 5)):
        monkeypatch.setattr(ranks, "my_rows", lambda n, rows=rows: rows)
        torch.manual_seed(1)
        own = augmented(adapter, x[rows], lengths_of(x)[rows], targets[rows], 5, settings)
        torch.testing.assert_close(own.x, whole.x[rows], rtol=0, atol=1e-5)
        torch.testing.assert_close(own.targets, whole.targets[rows])


@pytest.mark.parametrize("model", ["m2d", "byol_a", "log_mel_stats"])
def test_a_rank_without_a_clip_takes_part_in_a_step(model):
    """The last batch of an epoch may be shorter than the number of ranks."""
    adapter = {"m2d": m2d, "byol_a": byol_a}.get(model, lambda: build_adapter(model))()
    network, empty = FineTuned(adapter, 3), waves(2)[:0]
    network.adapter.train()
    x = features(adapter, empty, lengths_of(empty))
    assert len(x) == 0
    logits = network.eval()(x, lengths_of(empty))
    assert logits.shape == (0, 3)
    losses(logits, torch.zeros(0, 3), multi_label=False).sum().backward()


def test_zeros_of_the_raw_log_mel_follow_a_short_clip_in_the_audioset_preset():
    """The stored log-mel of the clip alone, zero-padded to 6.1 s, then zeros up to ten seconds, then standardised."""
    adapter = m2d(dur_frames="1001")
    seconds = (10.0, 8.0, 3.0)
    x, lengths = torch.zeros(3, 10 * SECOND), torch.tensor([int(s * SECOND) for s in seconds])
    for k, n in enumerate(lengths):
        x[k, :n] = waves(1, 10.0, seed=k)[0, :n]
    ours = features(adapter, x, lengths, "reference")
    for k, n in enumerate(lengths.tolist()):
        alone = np.pad(x[k, :n].numpy(), (0, max(0, int(6.1 * SECOND) - n)))
        raw = adapter.front_end(torch.from_numpy(alone)[None])[0]
        stored = torch.zeros(80, 1001)
        stored[:, : raw.shape[1]] = raw
        wanted = (stored + 7.1) / 4.2
        edge = slice(raw.shape[1] - 2, raw.shape[1])  # frames that reach over the clip's end: mirrored, or silence
        same = torch.ones(1001, dtype=torch.bool)
        same[edge] = n == 10 * SECOND
        torch.testing.assert_close(ours[k, 0][:, same], wanted[:, same], rtol=0, atol=1e-3)
    assert ours[1, 0, 0, 801:].unique().item() == pytest.approx(7.1 / 4.2), "louder than the mean by 1.69 deviations"
    assert ours[2, 0, 0, 611:].unique().item() == pytest.approx(7.1 / 4.2) and ours[2, 0, 0, 610] < -1
    silence = features(adapter, x, lengths)
    assert silence[1, 0, 0, 805] < -2
    with pytest.raises(UserError, match="ByolA's log-mel"):
        features(byol_a(), x, lengths, "reference")
