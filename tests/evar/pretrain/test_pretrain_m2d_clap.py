"""M2D-CLAP 2024 and 2025 stage 1: a whole recorded training step, its options, and one process or two alike."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import arrays, golden, needs_shared, recipe
from two_ranks import launch

from evar import ranks
from evar.errors import UserError
from evar.optimisers import make_optimiser
from evar.pretrain.base import Batch, DataFacts
from evar.pretrain.objectives import build
from evar.pretrain.objectives.m2d_clap import M2DClap
from evar.pretrain.projectors import new_audio_projector
from evar.pretrain.settings import PretrainSettings
from evar.training import Trainer
from model_adapters.m2d_clap import M2DClap as Adapter
from model_adapters.networks.m2d_files import sort_out

FIXED = ("norm_stats", "pos_embed", "decoder_pos_embed", "logit_scale")
SIZES = {"dim": 48, "depth": 2, "heads": 3, "decoder_dim": 32, "decoder_depth": 2, "decoder_heads": 4}
SMALL = PretrainSettings(objective="m2d_clap", input_size=(80, 96), **SIZES)
STEPS, BATCHES = 20, (8, 7)
RECORDED = {"proj24": 24, "ident48": 48}


def objective(settings=SMALL, text_dim=24, seed=5):
    torch.manual_seed(seed)
    return build(settings, DataFacts((-7.1, 4.2), text_dim=text_dim)).train()


def recorded(text_dim):
    """Return the objective with the recorded step's weights, and its batch."""
    model, stored = objective(text_dim=text_dim), arrays("pretrain_forward.npz")
    own = model.state_dict()
    weights = {
        k: torch.from_numpy(recipe().tensor_for(k, tuple(v.shape), 32)) for k, v in own.items() if k not in FIXED
    }
    model.load_state_dict(weights, strict=False)
    log_mel, text = (torch.from_numpy(stored[name]) for name in ("imgs", f"text{text_dim}"))
    return model, Batch(np.arange(6), log_mel, text), torch.from_numpy(stored["noise"])


def close(ours, theirs, rtol=1e-4, atol=1e-6, what=""):
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=rtol, atol=atol, err_msg=what)


@needs_shared
@pytest.mark.parametrize(("name", "text_dim"), RECORDED.items())
def test_recorded_forward_pass(name, text_dim):
    stored = arrays(f"pretrain_clap_{name}.npz")
    model, batch, noise = recorded(text_dim)
    assert model.logit_scale.item() == pytest.approx(float(stored["logit_scale_before"]), abs=1e-7)
    masked = model.masked_pass(batch.log_mel, noise)
    close(masked.latent, stored["latent"], atol=1e-5)
    close(masked.prediction, stored["pred"], atol=1e-5)
    assert torch.equal(masked.order.argsort(1), torch.from_numpy(stored["ids_restore"]))
    close(model.audio_proj(masked.visible), stored["audio_embs"], atol=1e-5)
    close(model.text_proj(batch.text), stored["text_proj"], atol=1e-5)
    found = {part: values.mean().item() for part, values in model.losses(batch, noise).items()}
    for part, key in (("loss", "loss"), ("m2d", "loss_m2d"), ("clap", "loss_clap")):
        assert found[part] == pytest.approx(float(stored[key]), rel=1e-5), part


@needs_shared
@pytest.mark.parametrize(("name", "text_dim"), RECORDED.items())
def test_recorded_step(name, text_dim):
    """Gradients, their norm, clipping, AdamW, the target network's move after it, and the temperature's bounds."""
    stored = arrays(f"pretrain_clap_{name}.npz")
    model, batch, noise = recorded(text_dim)
    model.settings = replace(SMALL, ema=(float(stored["ema_decay"]),) * 2)
    model.plan(1)
    optimiser = make_optimiser("adamw", model, weight_decay=0.05, decay_vectors=False, amsgrad=False)
    check_groups(model, optimiser, json.loads(golden(f"pretrain_clap_{name}_param_groups.json").read_text()))
    seen = {}
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda gradient, key=key: seen.__setitem__(key, gradient.clone()))
    engine = Trainer(model, optimiser, [1e-3], seed=0, clip_norm=3.0)
    info = engine.step(lambda part: model.losses(part, noise)["loss"], [batch], rows=6)
    model.after_step(info.step)
    assert info.grad_norm == pytest.approx(float(stored["grad_norm_before_clip"]), rel=1e-6)
    assert seen.keys() == {key[5:] for key in stored if key.startswith("grad.")}
    for key, gradient in seen.items():
        close(gradient, stored[f"grad.{key}"], rtol=1e-4, atol=1e-6, what=key)
    state = model.state_dict()
    assert state.keys() == {key[6:] for key in stored if key.startswith("after.")}
    noise_only, everything = 0, 0
    for key, value in state.items():
        # Adam's first step is lr·g/|g|: where a gradient is nothing but rounding, its sign is the platform's.
        gradient = seen.get(key.removeprefix("target_"))
        sure = torch.ones_like(value, dtype=torch.bool) if gradient is None else gradient.abs() > 1e-6
        off = (value - torch.from_numpy(stored[f"after.{key}"])).abs()
        assert off[sure].max() < 1e-6 and off.max() < 2.1e-3, key
        noise_only, everything = noise_only + int((~sure).sum()), everything + sure.numel()
    assert noise_only < 0.02 * everything


def check_groups(model, optimiser, expected):
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    found = {f"wd={g['weight_decay']}": {names[id(p)] for p in g["params"]} for g in optimiser.param_groups}
    assert found == {decay: set(keys) for decay, keys in expected.items()}


@pytest.mark.parametrize(("projector", "depth", "tensors"), [("mean", 1, 4), ("semantic", 1, 15), ("semantic", 3, 39)])
def test_the_state_dict_is_the_published_one_and_the_adapter_loads_it(tmp_path, projector, depth, tensors):
    model = objective(replace(SMALL, projector=projector, projector_depth=depth, heads=0))
    state = model.state_dict()
    assert sum(key.startswith("audio_proj.") for key in state) == tensors
    assert {key for key in state if key.startswith(("text_proj", "logit"))} == {
        "text_proj.weight", "text_proj.bias", "logit_scale"
    }  # fmt: skip
    folder = tmp_path / "m2d_clap_vit-80x96p16x16-test"
    folder.mkdir()
    torch.save({"model": state}, folder / "checkpoint-1.pth")
    adapter = Adapter(weights=str(folder))
    log_mel = torch.randn(2, 1, 80, 96)
    with torch.no_grad():
        ours = model.audio_proj(model.encode_tokens(model.tokens(log_mel))[:, 1:])
        torch.testing.assert_close(adapter.audio_proj(adapter.tokens_of(log_mel)), ours, rtol=1e-4, atol=1e-5)


def test_projector_modes_of_the_published_code():
    """MODELS 4.2: mode 0 is the mean; 1 and 2 have as many blocks of ratio 1, 3 and 4 of ratio 2; all have one head."""
    for mode in (1, 2, 3, 4):
        made = new_audio_projector("semantic", mode, 48)
        assert len(made.sem_blocks) == mode and made.sem_blocks[0].attn.heads == 1
        assert made.sem_blocks[0].mlp.fc1.out_features == (48 if mode <= 2 else 96)
        assert not made.sem_token.any() and made.norm.eps == 1e-5
    for kind, depth in (("semantic", 0), ("semantic", 5), ("median", 1)):
        with pytest.raises(UserError, match="mean, or semantic with 1 to 4"):
            new_audio_projector(kind, depth, 48)


def test_published_number_of_parameters():
    """MODELS 2.3: 112,443,649 trained and 406 tensors in 2024, 117,957,889 and 419 in 2025."""
    for settings, text, trained, tensors in (
        (PretrainSettings(), 768, 112_443_649, 406),
        (PretrainSettings(projector="semantic"), 4096, 117_957_889, 419),
    ):
        # Without values for 200 million numbers; the tables of positions cannot be copied into nothing.
        with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "copy_", lambda self, *_: self)
            model = M2DClap(settings, DataFacts((-7.1, 4.2), text_dim=text))
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained
        assert len(model.state_dict()) == tensors


def test_options_of_the_loss():
    batch, noise = data(6), torch.rand(6, 30)
    parts = objective(replace(SMALL, w_m2d=0.5, w_other=3.0)).losses(batch, noise)
    torch.testing.assert_close(parts["loss"], 0.5 * parts["m2d"] + 3 * parts["clap"])
    gradients = []
    for scale in (1.0, 0.25):
        model = objective(replace(SMALL, w_m2d=0.0, w_other=1.0, clap_grad_scale=scale))
        model.losses(batch, noise)["loss"].mean().backward()
        gradients.append({key: p.grad for key, p in model.named_parameters() if p.grad is not None})
    full, quarter = gradients
    for key in ("blocks.0.attn.qkv.weight", "audio_proj.0.weight", "text_proj.weight"):
        assert full[key].abs().max() > 0
        torch.testing.assert_close(quarter[key], 0.25 * full[key], rtol=1e-5, atol=1e-8)
    assert torch.equal(quarter["logit_scale"], full["logit_scale"])


def test_the_temperature_is_bounded_and_shown():
    model = objective(replace(SMALL, temperature=0.01))
    model.plan(2)
    model.logit_scale.data.fill_(7.0)
    model.after_step(0)
    assert model.figures()["temperature"] == pytest.approx(0.01, rel=1e-4)


def test_without_captions_it_says_what_is_missing():
    with pytest.raises(UserError, match="--captions"):
        objective(text_dim=0)
    with pytest.raises(UserError, match="--captions"):
        objective().losses(replace(data(2), text=None), torch.rand(2, 30))


def test_the_start_depends_on_the_seed_alone():
    settings = replace(SMALL, projector="semantic")
    one, again, other = (objective(settings, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], again[key]) for key in one)
    for key in ("blocks.0.attn.qkv.weight", "audio_proj.sem_blocks.0.mlp.fc1.weight", "text_proj.weight"):
        assert not torch.equal(one[key], other[key])
    assert sort_out(one).audio_proj.keys() == {k[11:] for k in one if k.startswith("audio_proj.")}


def data(clips, seed=0):
    generator = torch.Generator().manual_seed(seed)
    log_mel = torch.randn(clips, 1, 80, 96, generator=generator)
    return Batch(np.arange(clips), log_mel, torch.randn(clips, 24, generator=generator))


def train(kind, micro=1):
    """Take 20 steps, on whole and on odd global batches; return weights and losses."""
    model = objective(replace(SMALL, projector="semantic", w_other=1.0, clap_grad_scale=0.5, ema=(0.9, 0.99)))
    model.plan(STEPS)
    optimiser = make_optimiser(kind, model, decay_vectors=False, **({"amsgrad": False} if kind == "adamw" else {}))
    engine = Trainer(model, optimiser, [0.02 if kind == "sgd" else 1e-4] * STEPS, seed=1, clip_norm=3.0)
    losses = []
    for step in range(STEPS):
        clips = BATCHES[step % len(BATCHES)]
        whole = data(clips, seed=step % 4)

        def parts(clips=clips, whole=whole):
            noise, own = model.draw(clips), whole.part(ranks.my_rows(clips))
            for rows in (ranks.share(len(own), part, micro) for part in range(micro)):
                yield own.part(rows), noise[rows]

        info = engine.step(lambda part: model.losses(*part)["loss"], parts(), rows=clips)
        model.after_step(info.step)
        losses.append(info.loss)
    return {"weights": {key: value.clone() for key, value in model.state_dict().items()}, "losses": losses}


def main(folder):
    ranks.start("cpu")
    torch.save({kind: train(kind) for kind in ("sgd", "adamw")}, folder / f"rank{ranks.rank()}.pt")
    ranks.barrier()
    ranks.stop()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return launch(__file__, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_two_processes_train_as_one(two, kind):
    """To 1e-5, but for the biases of keys under AdamW: their gradient is 0 but for rounding, which AdamW divides by."""
    alone, start = train(kind), objective(replace(SMALL, projector="semantic")).state_dict()
    assert np.mean(alone["losses"][-4:]) < np.mean(alone["losses"][:4])
    for found in two:
        assert found[kind]["losses"] == pytest.approx(alone["losses"], abs=1e-5)
        for key, value in alone["weights"].items():
            atol = 2e-4 if kind == "adamw" and key.endswith("qkv.bias") else 1e-5
            torch.testing.assert_close(found[kind]["weights"][key], value, rtol=0, atol=atol, msg=key)
    assert all(torch.equal(value, two[1][kind]["weights"][key]) for key, value in two[0][kind]["weights"].items())
    for key in ("logit_scale", "text_proj.weight", "audio_proj.sem_token", "target_norm.weight"):
        assert not torch.equal(alone["weights"][key], start[key]), f"{key} was not trained"


def test_micro_batches_are_worlds_of_their_own_to_the_contrastive_loss():
    """Accumulated over two parts, each clip has half as many negatives, and the loss is lower; M2D's is not."""
    model, batch, noise = objective(), data(8), torch.rand(8, 30)
    whole = model.losses(batch, noise)
    halves = [model.losses(batch.part(rows), noise[rows]) for rows in (slice(0, 4), slice(4, 8))]
    joined = {part: torch.cat([half[part] for half in halves]) for part in whole}
    torch.testing.assert_close(joined["m2d"], whole["m2d"], rtol=1e-4, atol=1e-5)
    assert (joined["clap"] < whole["clap"]).all()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
