"""AST: recorded outputs of transformers' model, positions for other lengths, the task's statistics, tags."""

from types import SimpleNamespace

import pytest
import torch
from adapter_goldens import agrees, clips, value_of
from golden import needs_shared
from torch.nn import functional as F

from evar.errors import UserError
from evar.extract import model_facts
from model_adapters import ast as adapter_of_ast
from model_adapters.ast import AstAdapter
from model_adapters.base import ClipBatch
from model_adapters.byol_a import exact_statistics, moments
from model_adapters.networks.frontends_kaldi import AST, KaldiFbank
from model_adapters.networks.hf_ast import AnyLength, pooled, proportions
from model_adapters.registry import load_model

transformers = pytest.importorskip("transformers")

OLD_NAMES = {
    "encoder.layer.": "layers.",
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
"""Names of transformers 4 and 5."""


def lengths_of(waves):
    return torch.full((len(waves),), waves.shape[1])


@pytest.fixture(scope="module")
def small():
    return AstAdapter(weights="random:3", depth=1, embed_dim=64, stats="audioset")


@pytest.fixture(scope="module")
def noise():
    return 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))


def newer(name):
    for old, new in OLD_NAMES.items():
        name = name.replace(old, new)
    return name


@needs_shared
@pytest.mark.slow
def test_recorded_output():
    with torch.device("meta"):
        model = transformers.ASTModel(transformers.ASTConfig())
    model = model.to_empty(device="cpu").eval()
    model.load_state_dict({k: value_of(newer(k), tuple(v.shape)) for k, v in model.state_dict().items()})
    model.embeddings = AnyLength(model.embeddings, model.config)
    x = KaldiFbank(AST)(clips(16000, 10))
    x = F.pad(x, (0, 0, 0, 1024 - x.shape[1]), value=-AST.mean / AST.std)  # the published model's own length
    with torch.inference_mode():
        agrees("hf_ast.pooler768.10s", pooled(model, x))


def test_at_its_own_length_it_is_transformers_model(noise):
    torch.manual_seed(0)
    model = transformers.ASTModel(transformers.ASTConfig(**proportions(1, 64))).eval()
    torch.nn.init.normal_(model.embeddings.position_embeddings)
    x = torch.randn(1, 1024, 128)
    with torch.inference_mode():
        expected = model(x).pooler_output
        model.embeddings = AnyLength(model.embeddings, model.config)
        assert torch.allclose(pooled(model, x), expected, atol=1e-6)


def test_positions_are_a_window_from_the_middle_or_stretched(small):
    embeddings = small.network.embeddings
    table = torch.arange(12 * 101, dtype=torch.float32).repeat(64, 1).T[None]
    grid = table[0, :, 0].unflatten(0, (12, 101))
    before = embeddings.position_embeddings.data
    embeddings.position_embeddings.data = torch.cat([before[:, :2], table], dim=1)
    try:
        assert torch.equal(embeddings.positions(101)[:, 2:], table)
        assert torch.equal(embeddings.positions(9)[0, 2:, 0].unflatten(0, (12, 9)), grid[:, 46:55])
        assert torch.equal(embeddings.positions(98)[0, 2:, 5].unflatten(0, (12, 98)), grid[:, 1:99])
        longer = embeddings.positions(202)[0, 2:, 0].unflatten(0, (12, 202))
    finally:
        embeddings.position_embeddings.data = before
    assert torch.allclose(longer[:, 1:-1:2], grid[:, :-1] + 0.25, atol=1e-3)
    assert torch.allclose(longer[:, 2::2], grid[:, :-1] + 0.75, atol=1e-3)


def test_alone_and_in_a_batch_and_twice_are_the_same(small, noise):
    with torch.inference_mode():
        both = small.embed(noise, lengths_of(noise))
        assert both.shape == (2, 64) and torch.equal(both, small.embed(noise, lengths_of(noise)))
        alone = torch.cat([small.embed(wave[None], lengths_of(wave[None])) for wave in noise])
        assert torch.allclose(both, alone, atol=1e-4)
        assert torch.allclose(both, small.embed(noise + 0.5, lengths_of(noise)), atol=1e-2)  # the mean is taken away
    assert torch.allclose(small.encode(small.log_mel(noise)), both, atol=1e-5)


@pytest.mark.parametrize("samples", [100, 1600, 16000 * 12])
def test_silence_of_any_length(small, samples):
    with torch.inference_mode():
        assert small.embed(torch.zeros(1, samples), torch.tensor([samples])).isfinite().all()


def test_statistics_are_the_tasks(noise):
    adapter = AstAdapter(weights="random", depth=1, embed_dim=64)
    assert adapter.needs_prepare and adapter.skeleton() is None
    with pytest.raises(UserError, match="--stats=audioset"):
        adapter.log_mel(noise)
    batch = ClipBatch(noise, lengths_of(noise))
    task = SimpleNamespace(batch_size=2, batches=lambda rate, size, **_: iter([batch, batch, batch]))
    adapter.prepare(1.0, task)
    raw = KaldiFbank(AST)(noise - noise.mean(1, keepdim=True)) * AST.std + AST.mean
    mean, deviation = exact_statistics([moments(raw)])
    assert adapter.norm_stats == pytest.approx((mean, deviation), rel=1e-4)
    log_mel = adapter.log_mel(noise)
    assert float(log_mel.mean()) == pytest.approx(0, abs=1e-3)
    assert float(log_mel.std()) == pytest.approx(0.5, abs=1e-3)
    given = AstAdapter(weights="random", depth=1, embed_dim=64, norm_stats="1,2")
    given.prepare(1.0, task)
    assert given.state() == {"norm_stats": [1.0, 2.0]} and not given.needs_prepare


def test_tags_are_those_of_the_head_with_audiosets_statistics(small, noise):
    prepared = AstAdapter(weights="random:3", depth=1, embed_dim=64, stats="dataset")
    prepared.norm_stats = (1.0, 2.0)
    with torch.inference_mode():
        tags = prepared.tag_probabilities(noise, lengths_of(noise))
        assert torch.equal(tags, small.tag_probabilities(noise, lengths_of(noise)))
        assert torch.allclose(tags, small.head(small.embed(noise, lengths_of(noise))).sigmoid(), atol=1e-6)
    assert len(prepared.class_names) == tags.shape[1] == 527 and prepared.class_names[0] == "Speech"


def test_chunks_weigh_what_they_hear(small, noise):
    chunked = AstAdapter(weights="random:3", depth=1, embed_dim=64, stats="audioset", long_audio="chunks")
    wave = noise[:1].repeat(1, 12)  # 1198 frames
    with torch.inference_mode():
        log_mel = small.log_mel(wave)
        first, rest = small.encode(log_mel[..., :1024]), small.encode(log_mel[..., 1024:])
        found = chunked.embed(wave, lengths_of(wave))
    assert torch.allclose(found, (1024 * first + 174 * rest) / 1198, atol=1e-5)


def test_folders_with_and_without_a_head(noise, tmp_path):
    labels = {0: "Dog", 1: "Cat", 2: "Rain"}
    config = transformers.ASTConfig(**proportions(1, 64), id2label=labels)
    torch.manual_seed(1)
    model = transformers.ASTForAudioClassification(config).eval()
    model.save_pretrained(tmp_path / "tagger")
    model.audio_spectrogram_transformer.save_pretrained(tmp_path / "encoder")
    tagger, encoder = (
        load_model("ast", str(tmp_path / name), {"stats": "audioset"}).adapter for name in ("tagger", "encoder")
    )
    assert tagger.class_names == ("Dog", "Cat", "Rain") and not hasattr(encoder, "class_names")
    assert len(tagger.weights_sha256) == 64
    with torch.inference_mode():
        both = [a.embed(noise, lengths_of(noise)) for a in (tagger, encoder)]
        assert torch.equal(*both)
        assert tagger.tag_probabilities(noise, lengths_of(noise)).shape == (2, 3)
    with pytest.raises(UserError, match="no tagging head"):
        encoder.tag_probabilities(noise, lengths_of(noise))
    skeleton = tagger.skeleton()
    other = load_model(skeleton.model, "random:9", skeleton.options).adapter
    assert skeleton.spare == ("head.",)
    other.network.load_state_dict(tagger.network.state_dict())
    with torch.inference_mode():
        assert torch.equal(other.embed(noise, lengths_of(noise)), both[0])


def test_the_settings_beside_the_weights_are_part_of_the_models_identity(tmp_path):
    """The weights' checksum does not know the activation that they are computed with."""
    config = transformers.ASTConfig(**proportions(1, 64))
    for name, act in (("gelu", "gelu"), ("relu", "relu")):
        config.hidden_act = act
        torch.manual_seed(5)
        transformers.ASTModel(config).save_pretrained(tmp_path / name)
    one, other = (load_model("ast", str(tmp_path / name)) for name in ("gelu", "relu"))
    assert one.weights_sha256 == other.weights_sha256
    facts = [model_facts(model, 5.0, "fp32", "clip", "x") for model in (one, other)]
    assert facts[0] != facts[1]


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    transformers.HubertConfig().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    for options, message in (
        ({"weights": str(tmp_path)}, "no AST but a hubert"),
        ({"weights": str(tmp_path / "nothing")}, "nothing"),
        ({"weights": "random", "stats": "x"}, "stats"),
        ({"weights": "random", "statistics": "x"}, "statistics"),
        ({"weights": "random", "long_audio": "x"}, "long_audio"),
        ({"weights": "random", "embed_dim": 65}, "divisible by 64"),
    ):
        with pytest.raises(UserError, match=message) as error:
            AstAdapter(**options)
        assert "\n" not in str(error.value)
    assert adapter_of_ast.ADAPTER is AstAdapter
