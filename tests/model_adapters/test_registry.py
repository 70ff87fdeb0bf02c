"""From a name on the command line to an adapter."""

import hashlib
from typing import get_args

import pytest
import torch

from evar.errors import UserError
from model_adapters import registry
from model_adapters.base import Adapter, ModelInfo, Weights, parse_random
from model_adapters.networks.audio_ntt import AudioNTT, AudioNTTSize
from model_adapters.registry import adapter_class, load_model, model_info, model_names, model_options, option_texts

MINE = '''
import torch
from model_adapters.base import Adapter


class Mine(Adapter):
    """Loudness and length."""

    sample_rate = 16000
    embedding_dim = 2

    def __init__(self, weights: str | None = None, *, gain: float = 1.0, name: str = "") -> None:
        super().__init__()
        self.gain, self.name, self.weights = gain, name, weights

    def embed(self, waveforms, lengths):
        return torch.stack([self.gain * waveforms.abs().mean(1), lengths.float()], 1)


class NotAnAdapter:
    pass
'''


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return f"{path}:Mine"


@pytest.mark.parametrize("name", model_names())
def test_every_model_names_its_facts(name):
    info = model_info(name)
    assert info.title and info.paper and info.code_licence
    assert info.kind in ("audio", "audio-language", "baseline")
    assert info.probe_lr > 0
    cls, argument, source = adapter_class(name)
    assert issubclass(cls, Adapter) and (argument, source) == (None, "")
    assert not {"weights", "base"} & set(model_options(name))


SLOW = ("m2d", "m2d_clap", "msm_mae", "atst_frame")
USUAL = (
    *("beats", "ced", "atst_clip", "htsat", "laion_clap", "msclap_2022", "msclap_2023", "wavcaps", "audioclip", "eat"),
    *("byol_a", "ast", "panns", "wav2vec2", "hubert", "wavlm", "data2vec_audio", "whisper", "vggish", "dasheng"),
)
RATES = dict.fromkeys(SLOW, 3e-5) | dict.fromkeys(USUAL, 3e-4)
"""Learning rates of the reference probe (RUNNERS 1.5)."""


@pytest.mark.parametrize(("name", "rate"), RATES.items())
def test_the_published_probe_rates(name, rate):
    assert model_info(name).probe_lr == rate


def test_the_rates_that_depend_on_the_task(tmp_path):
    """RUNNERS 1.5: PANNs on NSynth, VGGish on ESC-50 and VC1, BYOL-A v2 (not v1) on all but CREMA-D."""
    panns, vggish = load_model("panns", "random", {"width": "8"}), load_model("vggish", "random", {"width": "8"})
    assert [panns.probe_lr(task) for task in ("nsynth", "esc50")] == [1e-5, 3e-4]
    assert [vggish.probe_lr(task) for task in ("esc50", "vc1", "us8k")] == [3e-3, 5e-4, 3e-4]
    v1 = load_model("byol_a", "random", {"feature_d": "16"})
    torch.save(AudioNTT(AudioNTTSize(blocks=2, hidden=16, out=16)).state_dict(), tmp_path / "v2.pth")
    v2 = load_model("byol_a", str(tmp_path / "v2.pth"))
    tasks = ("esc50", "us8k", "spcv2", "nsynth", "vc1", "voxforge", "cremad", "surge", "gtzan", "fsdd")
    assert [v2.probe_lr(t) for t in tasks] == [1e-3, 3e-5, 3e-5, 1e-3, 4e-5, 1e-4, 3e-4, 3e-5, 1e-3, 3e-4]
    assert {v1.probe_lr(task) for task in tasks} == {3e-4}


SIZES = {"depth", "embed_dim", "hidden_size", "width", "size", "feature_d"}
"""Options that say how large an untrained network is."""


@pytest.mark.parametrize("name", model_names())
def test_sizes_are_for_untrained_networks(name):
    """Read weights have a size of their own: an option that does nothing would still stand in the result."""
    cls = adapter_class(name)[0]
    asked = SIZES & set(model_options(name))
    assert asked <= set(cls.for_untrained) <= set(model_options(name))
    for option in cls.for_untrained:
        default = model_options(name)[option].default
        with pytest.raises(UserError, match=f"{name}: --{option} is for --weights=random; published weights"):
            load_model(name, "some.pth", {option: str(default)})


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("byol_a", "feature_d", "0"),
        ("aisfx", "width", "0"),
        ("vggish", "width", "-1"),
        ("atst_clip", "max_seconds", "0.00001"),
        ("atst_clip", "max_seconds", "nan"),
        ("hubert", "chunk_seconds", "1e-9"),
        ("msclap_2023", "window_seed", "3"),
    ],
)
def test_values_that_make_no_sense_are_refused_in_one_line(name, option, value):
    rule = {"long_audio": "first"} if option == "window_seed" else {}
    with pytest.raises(UserError, match=f"--{option}") as caught:
        load_model(name, "random", {option: value, **rule})
    assert "\n" not in str(caught.value)


def test_the_first_models_are_there():
    asked_for = {"m2d", "m2d_clap", "msm_mae", "log_mel_stats", "byol_a", "gpvad", "tag_text"}
    assert asked_for <= set(model_names())
    assert not {"base", "registry", "networks"} & set(model_names())


def refusal(*arguments, **how):
    with pytest.raises(UserError) as caught:
        load_model(*arguments, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_name_gets_the_nearest_right_one():
    assert refusal("byola").startswith("no model is called 'byola'. Did you mean 'byol_a'?")
    assert "your own: path/to/file.py:ClassName" in refusal("byola")


def test_a_colon_where_the_model_takes_nothing_after_it():
    assert refusal("m2d:base") == "'m2d:base': m2d takes nothing after a colon; write m2d"


def test_missing_weights_are_said_with_where_to_get_them():
    message = refusal("m2d")
    assert message.startswith("m2d needs --weights=PATH (published at http")
    assert message.endswith("or --weights=random for an untrained network")


def test_a_wrong_option_of_a_model_is_named():
    assert refusal("log_mel_stats", options={"n_mel": "3"}).startswith("log_mel_stats has no option --n_mel.")


def test_weights_for_a_model_without_weights():
    assert refusal("log_mel_stats", "x.pth") == "log_mel_stats has no weights; leave out --weights"


def test_a_users_own_file_works_in_the_models_place(mine):
    model = load_model(mine, options={"gain": "3", "name": "1e5"})
    assert (model.name, model.options) == ("mine:Mine", {"gain": 3.0, "name": "1e5"})
    assert model.source_sha256 == hashlib.sha256(MINE.encode()).hexdigest()
    assert not model.adapter.training
    assert model.info.needs_weights is False
    assert set(model_options(mine)) == {"gain", "name"}
    found = model.adapter.embed(torch.ones(1, 4), torch.tensor([4]))
    assert found.tolist() == [[3.0, 4.0]]


def test_an_edited_file_is_another_model(mine, tmp_path):
    before = load_model(mine)
    (tmp_path / "mine.py").write_text(MINE + "\nMine.embedding_dim = 3\n")
    after = load_model(mine)
    assert (before.adapter.embedding_dim, after.adapter.embedding_dim) == (2, 3)
    assert before.source_sha256 != after.source_sha256


def test_the_checksum_of_the_weights_file_is_kept(mine, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"weights")
    model = load_model(mine, str(tmp_path / "w.pth"))
    assert model.weights == model.adapter.weights == str(tmp_path / "w.pth")
    assert model.weights_sha256 == hashlib.sha256(b"weights").hexdigest()
    assert load_model(mine, "random:7").weights_sha256 == "random:7"
    assert load_model(mine).weights_sha256 == ""


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("{}/mine.py:Mime", "has no adapter class 'Mime'. Did you mean 'Mine'?"),
        ("{}/mine.py:NotAnAdapter", "has no adapter class 'NotAnAdapter'."),
        ("{}/mine.py", "write path/to/file.py:ClassName"),
        ("{}/mine.py:", "write path/to/file.py:ClassName"),
        ("{}/other.py:Mine", "there is no file "),
        ("{}/broken.py:Mine", "broken.py:2 cannot be imported: ZeroDivisionError: "),
        ("{}/syntax.py:Mine", "syntax.py cannot be imported: SyntaxError: "),
    ],
)
def test_what_is_wrong_with_a_users_own_file_is_one_line(mine, tmp_path, spec, complaint):
    (tmp_path / "broken.py").write_text("import torch\n1 / 0\n")
    (tmp_path / "syntax.py").write_text("class Mine(:\n")
    assert complaint in refusal(spec.format(tmp_path))


class Entry:
    """An entry point of an installed package."""

    name = "installed"

    def load(self):
        class Installed(Adapter):
            info = ModelInfo("Installed", "audio", "", "MIT", Weights("https://example.org", "CC0"))
            sample_rate, embedding_dim = 16000, 1

            def __init__(self, weights: str | None = None, *, base: str = "small"):
                super().__init__()
                self.base = base

        return Installed


def test_an_installed_package_adds_models_by_entry_point(monkeypatch):
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: [Entry()] if group == "evar.models" else [])
    assert "installed" in model_names()
    assert load_model("installed:large", "random").adapter.base == "large"
    assert refusal("installed") == (
        "installed needs --weights=PATH (published at https://example.org; CC0), or --weights=random for an untrained "
        "network"
    )


@pytest.mark.parametrize(
    ("text", "seed"), [("random", 0), ("random:7", 7), ("random:x", None), ("randomly", None), ("a/random", None)]
)
def test_asking_for_an_untrained_network(text, seed):
    assert parse_random(text) == seed


def test_every_option_says_what_it_does():
    """``--help`` after a model's name shows these texts."""
    texts = option_texts("m2d_clap")
    assert texts["text_pooling"].startswith("how that encoder") and texts["dur_frames"]
    assert option_texts("beats")["embed_dim"] == option_texts("beats")["depth"] == "size of a random network"
    silent = {
        (name, option) for name in model_names() for option in model_options(name) if not option_texts(name).get(option)
    }
    assert silent == set()


def test_the_types_of_options_are_types():
    assert get_args(model_options("eat")["long_audio"].annotation) == ("first", "chunks")
