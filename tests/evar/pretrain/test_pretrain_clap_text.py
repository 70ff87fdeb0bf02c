"""M2D-CLAP 2025, stages 2 and 2.1: what is trained, which patches are seen, and the published file, there and back."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import golden, needs_shared

sys.path.insert(0, str(Path(__file__).parents[2] / "model_adapters"))

from small_bert import save_bert
from two_ranks import launch

from evar import ranks
from evar.errors import UserError
from evar.optimisers import make_optimiser
from evar.pretrain.base import Batch, DataFacts
from evar.pretrain.objectives import build
from evar.pretrain.objectives.m2d_clap import M2DClap as Stage1
from evar.pretrain.settings import PretrainSettings
from evar.pretrain.text_side import load_trained_text_encoder
from evar.training import Trainer
from model_adapters.m2d_clap import M2DClap as Adapter
from model_adapters.networks.checkpoints import read_checkpoint
from model_adapters.networks.text import load_text_encoder

CAPTIONS = ("a dog barks", "rain on the roof can be heard", "music", "the cat and a dog", "loud speech", "quiet rain")
STATS = (-7.1, 4.2)
PUBLISHED = "m2d_clap_vit-80x96p16x16p16kpBpTI-test"
STEPS = 20


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return still(save_bert(tmp_path_factory.mktemp("bert")))


def still(folder):
    """Switch the encoder's dropout off: each process would draw it for itself."""
    config = folder / "config.json"
    config.write_text(config.read_text().replace('_dropout_prob": 0.1', '_dropout_prob": 0.0'))
    return folder


def settings(text_encoder, **given):
    usual = PretrainSettings(
        objective="clap_text", input_size=(80, 96), dim=128, depth=2, projector="semantic", temperature=0.01,
        mask="structured_reference", mask_ratio=0.3, train_encoder=False, text_encoder=str(text_encoder),
    )  # fmt: skip
    return replace(usual, **given)


def objective(text_encoder, stats=STATS, **given):
    torch.manual_seed(2)
    return build(settings(text_encoder, **given), DataFacts(stats)).train()


def data(clips=6, seed=0):
    log_mel = torch.randn(clips, 1, 80, 96, generator=torch.Generator().manual_seed(seed))
    return Batch(np.arange(clips), log_mel, captions=(CAPTIONS * 2)[:clips])


def saved(folder, state, name=PUBLISHED):
    (folder / name).mkdir()
    torch.save({"model": dict(state), "epoch": 30}, folder / name / "checkpoint-30.pth")
    return str(folder / name)


def test_names_are_those_of_the_published_file(bert):
    """MODELS 4.5: 166 tensors of a backbone of 12 blocks (46 with 2), the temperature, and BERT under two prefixes."""
    state = objective(bert).state_dict()
    groups = {key.split(".")[0] for key in state}
    assert groups == {"backbone", "logit_scale", "text_encoder"}
    assert sum(key.startswith("backbone.") for key in state) == 166 - 10 * 12
    assert sum(key.startswith("backbone.audio_proj.") for key in state) == 15 and "backbone.norm_stats" in state
    assert all(key.startswith("text_encoder.text_encoder.") for key in state if key.startswith("text_encoder"))
    assert state["logit_scale"].item() == pytest.approx(4.6052, abs=1e-6)


def test_the_published_form_loads_in_the_adapter(bert, tmp_path):
    model, batch = objective(bert).eval(), data()
    adapter = Adapter(weights=saved(tmp_path, model.state_dict()), text_encoder=str(bert))
    with torch.no_grad():
        audio = model.embed_audio(batch.log_mel, torch.zeros(6, 0))
        torch.testing.assert_close(adapter.audio_proj(adapter.tokens_of(batch.log_mel)), audio, rtol=1e-4, atol=1e-5)
        text = model.text_proj(model.text_encoder(CAPTIONS))
        torch.testing.assert_close(adapter.embed_text(CAPTIONS), text, rtol=1e-4, atol=1e-5)


def test_only_projector_text_and_temperature_learn(bert):
    model, batch = objective(bert, temperature=0.07), data()
    start = {key: value.clone() for key, value in model.state_dict().items()}
    fixed = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    assert fixed == {k for k, _ in model.named_parameters() if k.startswith("backbone.") and "audio_proj" not in k}
    optimiser = make_optimiser("adamw", model, decay_vectors=False, amsgrad=False)
    engine = Trainer(model, optimiser, [1e-3] * 3, seed=0, clip_norm=3.0)
    for _ in range(3):
        info = engine.step(lambda part: model.losses(part, model.draw(6))["loss"], [batch], rows=6)
        model.after_step(info.step)
    for key, value in model.state_dict().items():
        learns = key not in fixed and key != "backbone.norm_stats"
        assert torch.equal(value, start[key]) is not learns, key


def test_the_temperature_stays_within_its_bounds(bert):
    model = objective(bert)
    model.logit_scale.data.fill_(5.0)
    model.after_step(0)
    assert model.logit_scale.item() == pytest.approx(4.6052, abs=1e-6)
    assert model.figures()["temperature"] == pytest.approx(0.01, rel=1e-4)


def test_with_train_encoder_all_but_the_positions_learn(bert):
    model = objective(bert, train_encoder=True)
    assert [key for key, p in model.named_parameters() if not p.requires_grad] == ["backbone.pos_embed"]
    model.losses(data(), model.draw(6))["loss"].mean().backward()
    assert model.backbone.patch_embed.proj.weight.grad.abs().max() > 0


def test_masks(bert):
    """``structured`` leaves rows and columns out; the reference keeps them instead, a cross and no grid."""
    model = objective(bert)

    def drawn(mask, ratio):
        model.settings = replace(model.settings, mask=mask, mask_ratio=ratio)
        return model.draw(4)

    torch.manual_seed(11)
    draws = {mask: [drawn(mask, 0.5) for _ in range(20)] for mask in ("structured", "structured_reference")}
    for kept in draws["structured"] + draws["structured_reference"]:
        assert kept.shape[0] == 4 and (kept.diff(dim=1) > 0).all() and kept.max() < 30
    assert all(whole_lines(kept) for kept in draws["structured"])
    assert not all(whole_lines(kept) for kept in draws["structured_reference"])
    assert len({kept.shape[1] for kept in draws["structured"]}) > 1, "how many are kept is drawn anew each step"
    assert drawn("random", 0.3).shape == (4, 21)
    assert drawn("structured_reference", 0.0).shape == (4, 0)
    with pytest.raises(UserError, match="--mask=blocks"):
        objective(bert, mask="blocks")


def whole_lines(kept):
    """Return whether what is kept of each clip is a grid of some rows times some columns."""
    for clip in kept:
        rows, columns = set((clip // 6).tolist()), set((clip % 6).tolist())
        if len(rows) * len(columns) != len(clip):
            return False
    return True


def test_the_projector_hears_the_kept_patches_only(bert):
    model, batch = objective(bert), data(2)
    kept = torch.tensor([[0, 7, 29], [3, 4, 5]])
    with torch.no_grad():
        found = model.embed_audio(batch.log_mel, kept)
        louder = batch.log_mel.clone()
        louder[0, 0, :16, 16:32] += 5  # patch 1
        torch.testing.assert_close(model.embed_audio(louder, kept), found, rtol=0, atol=0)
        louder[0, 0, 16:32, 16:32] += 5  # patch 7
        assert not torch.allclose(model.embed_audio(louder, kept)[0], found[0])
        assert not torch.allclose(model.embed_audio(batch.log_mel, kept[:, :0]), found)


def test_batches_are_standardised_anew_for_a_published_encoder(bert):
    """The frozen encoder knows log-mels by the statistics in its file, whatever the corpus's are."""
    corpus, file = (-5.0, 3.0), (-7.0, 4.0)
    model, raw = objective(bert, stats=corpus), torch.randn(2, 1, 80, 96) * 3 - 6
    model.backbone.norm_stats.copy_(torch.tensor(file))
    same = objective(bert, stats=file)
    none = torch.zeros(2, 0)
    with torch.no_grad():
        ours = model.embed_audio((raw - corpus[0]) / corpus[1], none)
        torch.testing.assert_close(ours, same.embed_audio((raw - file[0]) / file[1], none), rtol=1e-4, atol=1e-5)


def test_stage_2_takes_the_encoder_of_stage_1_and_stage_21_all_of_stage_2(bert):
    torch.manual_seed(1)
    first = Stage1(settings("", objective="m2d_clap", mask="random", mask_ratio=0.7), DataFacts((-6.0, 3.0), 40))
    second = objective(bert)
    fresh = {key: value.clone() for key, value in second.state_dict().items()}
    taken = second.import_names(first.state_dict())
    assert set(taken) <= set(fresh) and not any("audio_proj" in key or "logit" in key for key in taken)
    second.load_state_dict(taken, strict=False)
    for key, value in second.backbone.state_dict().items():
        expected = fresh[f"backbone.{key}"] if key.startswith("audio_proj") else first.state_dict()[key]
        assert torch.equal(value, expected), key
    second.logit_scale.data.fill_(3.0)
    third = objective(bert, mask_ratio=0.0, mask="random")
    third.load_state_dict(third.import_names(second.state_dict()), strict=True)
    assert all(torch.equal(value, third.state_dict()[key]) for key, value in second.state_dict().items())


@needs_shared
def test_published_forms_without_statistics_bring_the_usual_ones(bert):
    state, _ = read_checkpoint(golden("ckpt", "m2d_vit_base-80x608p16x16-golden_enconly"))
    taken = objective(bert).import_names(state)
    assert taken["backbone.norm_stats"].tolist() == pytest.approx([-7.1, 4.2])
    assert "backbone.blocks.1.mlp.fc2.weight" in taken and all(key.startswith("backbone.") for key in taken)


@pytest.mark.parametrize("pooling", ["cls", "mean", "lasttoken"])
def test_sentences_are_read_as_the_encoder_says(tmp_path, pooling):
    """In a padded batch as alone, and for a BERT without settings of its own at [CLS]."""
    folder = still(save_bert(tmp_path, {"pooling_mode": pooling}, modules=("Transformer", "Pooling")))
    ours, theirs = load_trained_text_encoder(str(folder)), load_text_encoder(str(folder))
    torch.testing.assert_close(ours(CAPTIONS), theirs.encode(CAPTIONS), rtol=1e-4, atol=1e-5)
    assert ours(()).shape == (0, 128)
    names = set(ours.state_dict())
    if pooling == "cls":
        assert all(name.startswith("text_encoder.") for name in names)
    else:  # whoever loads the file as the published one's must not read it at [CLS]
        assert all(name.startswith(("encoder.", "reading")) for name in names) and ours.reading[0] == 2


def test_a_plain_bert_is_read_at_its_first_token(bert):
    expected = load_text_encoder(str(bert), pooling="cls").encode(CAPTIONS)
    torch.testing.assert_close(load_trained_text_encoder(str(bert))(CAPTIONS), expected, rtol=1e-4, atol=1e-5)


def test_a_text_encoder_of_another_width_gets_a_projection(bert, tmp_path):
    model = objective(bert, dim=64)
    assert model.state_dict()["text_proj.weight"].shape == (64, 128)
    adapter = Adapter(weights=saved(tmp_path, model.state_dict()), text_encoder=str(bert))
    with torch.no_grad():
        ours = model.text_proj(model.text_encoder(CAPTIONS))
        torch.testing.assert_close(adapter.embed_text(CAPTIONS), ours, rtol=1e-4, atol=1e-5)


def test_what_is_missing_is_said(bert):
    with pytest.raises(UserError, match="--text_encoder"):
        objective("")
    model = objective(bert)
    with pytest.raises(UserError, match="--captions"):
        model.losses(replace(data(), captions=None), model.draw(6))


def train(text_encoder):
    """Take 20 steps of SGD on global batches of 6 and 5 clips; return weights and losses."""
    model = objective(text_encoder, temperature=0.07)
    engine = Trainer(model, make_optimiser("sgd", model), [0.05] * STEPS, seed=4, clip_norm=3.0)
    losses = []
    for step in range(STEPS):
        clips = 6 - step % 2
        batch = data(clips, seed=step % 3).part(ranks.my_rows(clips))

        def parts(batch=batch, clips=clips):
            yield batch, model.draw(clips)

        info = engine.step(lambda part: model.losses(*part)["loss"], parts(), rows=clips)
        model.after_step(info.step)
        losses.append(info.loss)
    return {"weights": {key: value.clone() for key, value in model.state_dict().items()}, "losses": losses}


def main(folder):
    ranks.start("cpu")
    torch.save(train(folder / "bert"), folder / f"rank{ranks.rank()}.pt")
    ranks.barrier()
    ranks.stop()


def test_two_processes_train_as_one(tmp_path):
    (tmp_path / "bert").mkdir()
    alone = train(still(save_bert(tmp_path / "bert")))
    assert np.mean(alone["losses"][-6:]) < 0.95 * np.mean(alone["losses"][:6])
    for found in launch(__file__, tmp_path):
        assert found["losses"] == pytest.approx(alone["losses"], abs=1e-5)
        for key, value in alone["weights"].items():
            torch.testing.assert_close(found["weights"][key], value, rtol=0, atol=1e-5, msg=key)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
