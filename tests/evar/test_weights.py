"""Published weights: what is listed, what is found, what is downloaded, and what is refused."""

import hashlib
import types
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from commands import evar
from served import serving

from evar.errors import UserError
from evar.fetch import hub, published
from evar.weights import HEADS, Need, needs_of, row_of, size_text, state_in_words, weights
from model_adapters import registry
from model_adapters.base import Adapter, ModelInfo, TextSide, Weights, WeightsFile
from model_adapters.networks.m2d_files import geometry_of_name
from model_adapters.registry import load_model, model_info, model_names

CONTENT = b"weights" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()
MINE = Weights("https://example.org/mine", "CC0", file_name="mine.pt", sha256=SHA, size=len(CONTENT))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


class Mine(Adapter):
    """Remembers what it was given."""

    info = ModelInfo("Mine", "audio", "", "MIT", MINE)
    sample_rate, embedding_dim = 16000, 1

    def __init__(self, *, weights: str):
        super().__init__()
        self.given = weights


@pytest.fixture
def mine(monkeypatch):
    entry = types.SimpleNamespace(name="mine", load=lambda: Mine)
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: [entry])


def test_the_folder_is_the_environments_or_below_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path))
    monkeypatch.delenv("EVAR_WEIGHTS", raising=False)
    assert published.weights_dir() == tmp_path / "weights"
    monkeypatch.setenv("EVAR_WEIGHTS", str(tmp_path / "elsewhere"))
    assert published.weights_dir() == tmp_path / "elsewhere"


def test_a_file_in_the_folder_stands_for_weights_left_out(folder, mine):
    (folder / "mine.pt").write_bytes(CONTENT)
    model = load_model("mine")
    assert model.adapter.given == str(folder / "mine.pt")
    assert (model.weights, model.weights_sha256) == (None, SHA)


def test_a_file_in_the_folder_can_be_named(folder, mine, tmp_path, monkeypatch):
    (folder / "other.pt").write_bytes(b"other")
    assert load_model("mine", "other.pt").adapter.given == str(folder / "other.pt")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.pt").write_bytes(b"nearer")
    assert load_model("mine", "other.pt").adapter.given == "other.pt"
    assert load_model("mine", "random").adapter.given == "random"


def test_without_file_and_url_one_line_says_where_to_get_it(folder, mine):
    with pytest.raises(UserError) as caught:
        load_model("mine")
    assert str(caught.value) == (
        f"mine needs --weights=PATH (published at https://example.org/mine; CC0), put mine.pt into {folder}, or "
        "--weights=random for an untrained network"
    )


def test_a_file_with_another_checksum_is_not_taken(folder, mine):
    (folder / "mine.pt").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"is not the published file \(sha256:"):
        load_model("mine")


def test_what_anybody_may_download_is_downloaded_and_checked(folder, mine, monkeypatch, tmp_path):
    with serving(tmp_path / "served") as served:
        (tmp_path / "served" / "mine.pt").write_bytes(CONTENT)
        free = Weights("x", "CC0", url=served("mine.pt"), file_name="sub/mine.pt", sha256=SHA, size=len(CONTENT))
        monkeypatch.setattr(Mine, "info", ModelInfo("Mine", "audio", "", "MIT", free))
        assert state_in_words("mine") == "downloaded on first use"
        assert load_model("mine").adapter.given == str(folder / "sub" / "mine.pt")
        assert load_model("mine").weights_sha256 == SHA
        assert served.asked == ["mine.pt"]
        (folder / "sub" / "mine.pt").write_bytes(b"damaged")
        assert load_model("mine").weights_sha256 == SHA
    assert state_in_words("mine") == "there"


def test_a_file_of_another_length_than_published_is_not_kept(folder, tmp_path):
    with serving(tmp_path / "served") as served:
        (tmp_path / "served" / "a.pt").write_bytes(b"short")
        with pytest.raises(UserError, match=r"gave 5 bytes and not the 9 that were published"):
            published.download(WeightsFile("a.pt", url=served("a.pt"), size=9))
    assert not (folder / "a.pt").exists()


def test_a_repository_of_the_hub_may_lie_in_the_folder(folder):
    hub = Weights("https://huggingface.co/org/name", "MIT", hub="org/name")
    assert published.find(hub) is None
    (folder / "org" / "name").mkdir(parents=True)
    (folder / "org" / "name" / "config.json").write_text("{}")
    assert published.find(hub) == folder / "org" / "name"


def test_no_pickle_is_fetched_from_the_hub_where_there_is_another_file(monkeypatch, tmp_path):
    published_as = {"a/b": "model.safetensors", "a/c": "pytorch_model.bin", "a/e": "notes.txt"}
    asked: dict[str, list[str]] = {}

    def snapshot(repository, *, allow_patterns, local_files_only, **_):
        folder = tmp_path / repository
        if repository not in published_as or (local_files_only and not folder.is_dir()):
            raise FileNotFoundError(repository)
        if not local_files_only:
            asked.setdefault(repository, []).extend(allow_patterns)
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("config.json", published_as[repository]):
                if any(fnmatch(name, pattern) for pattern in allow_patterns):
                    (folder / name).write_text("{}")
        return str(folder)

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr(hub, "_silence", lambda: "")
    assert [hub.from_hub(name) for name in ("a/b", "a/c")] == [tmp_path / "a/b", tmp_path / "a/c"]
    assert ["pytorch_model*" in asked[name] for name in ("a/b", "a/c")] == [False, True]
    with pytest.raises(UserError, match=r"'a/d' are not in the local cache and cannot be had.*FileNotFoundError"):
        hub.from_hub("a/d")
    with pytest.raises(UserError, match="the repository has no such files"):
        hub.from_hub("a/e")
    asked.clear()
    assert hub.from_hub("a/b") == tmp_path / "a/b" and not asked, "what lies here is not asked for again"


def test_states_of_a_file(folder):
    file = WeightsFile("a.pt", size=4)
    assert published.state_of(file) == "not there"
    (folder / "a.pt.part").write_bytes(b"12")
    assert published.state_of(file) == "unfinished (0.0 MB)"
    (folder / "a.pt").write_bytes(b"12")
    assert published.state_of(file) == "wrong size (2 of 4 bytes)"
    (folder / "a.pt").write_bytes(b"1234")
    assert published.state_of(file) == "there"


def test_a_folder_stands_for_the_file_in_it(folder, capsys):
    file = WeightsFile("m2d_vit-80x208p16x16-1")
    mine = Weights("https://x", "MIT", file_name=file.name)
    (folder / file.name).mkdir(parents=True)
    assert published.state_of(file) == "not there" and published.find(mine) is None, "an empty folder is nothing"
    (folder / file.name / "checkpoint-300.pth").write_bytes(b"12")
    assert published.state_of(file) == "there" and published.find(mine) == folder / file.name


def test_the_papers_own_models_list_every_published_geometry():
    """MODELS 8: the releases; what each folder's name says is what its network is built for."""
    listed = {need.file.name: geometry_of_name(f"{need.file.name}/x.pth") for need in needs_of("m2d") if need.file}
    assert len(listed) == 14 and all(listed.values())
    assert {(g.n_mels, g.frames, g.patch, g.sample_rate) for g in listed.values()} == {
        (80, 608, (16, 16), 16000),
        (80, 200, (16, 4), 16000),
        (80, 1001, (16, 16), 16000),
        (80, 608, (80, 2), 16000),
        (80, 512, (80, 2), 16000),
        (80, 400, (80, 2), 16000),
        (80, 608, (16, 16), 32000),
        (80, 1001, (16, 16), 32000),
    }


def test_files_are_listed_once_the_default_one_first():
    further = ("b.pt", WeightsFile("a.pt"), WeightsFile("c.pt"))
    files = Weights("x", "MIT", file_name="a.pt", md5="12", files=further).all_files()
    assert [file.name for file in files] == ["a.pt", "b.pt", "c.pt"]
    assert (files[0].checksum, files[1].checksum) == ("md5:12", "")


def test_every_model_with_weights_states_them():
    for name in model_names():
        published_as = model_info(name).weights
        for need in needs_of(name):
            assert isinstance(need, Need) and len(row_of(need)) == len(HEADS)
            assert need.weights.licence and need.weights.source.startswith("http"), name
        if published_as is not None:
            assert needs_of(name) and sum(need.default for need in needs_of(name) if need.text is None) == 1, name


def test_the_licence_of_every_model_is_in_the_documents():
    page = (Path(__file__).resolve().parents[2] / "docs" / "licences.md").read_text()
    missing = [name for name in model_names() if f"`{name}`" not in page and f"`{name}:" not in page]
    assert not missing


def test_sizes_in_words():
    assert (size_text(3_300_000), size_text(1_240_000_000)) == ("3.3 MB", "1.2 GB")


def test_the_command_lists_and_verifies(tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_WEIGHTS", str(tmp_path))
    listed = evar("weights", "gpvad,byol_a", cache=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "gpvad_teacher2.pth" in listed.stdout and "not there" in listed.stdout
    assert "AudioNTT2020-BYOLA-64x96d512.pth (v1)" in listed.stdout
    assert listed.stdout.endswith(f"folder: {tmp_path}\n")
    torch.save({}, tmp_path / "gpvad_teacher2.pth")
    wrong = evar("weights", "gpvad", "--verify", cache=tmp_path)
    assert wrong.returncode == 2
    assert "WRONG" in wrong.stdout and len(wrong.stderr.splitlines()) == 1
    assert "gpvad_teacher2.pth" in wrong.stderr
    refused = evar("weights", "--download", cache=tmp_path)
    assert refused.returncode == 2 and "'*': all" in refused.stderr
    by_hand = evar("weights", "byol_a", "--download", "--format=csv", cache=tmp_path)
    assert by_hand.stdout.startswith("byol_a: by hand from https://")


def test_a_damaged_list_of_parts_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for text in ("<html>", "[]", "{}", '{"weight_map": 3}'):
        (tmp_path / "model.safetensors.index.json").write_text(text)
        with pytest.raises(UserError, match=r"model.safetensors.index.json is damaged"):
            hub.is_complete(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "a.safetensors"}}')
    assert not hub.is_complete(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"")
    assert hub.is_complete(tmp_path)


def test_a_model_of_which_nothing_is_published_is_not_said_to_be_there_untrained():
    with pytest.raises(UserError) as caught:
        load_model("finetuned")
    assert "finetuned needs --weights=PATH" in str(caught.value) and "random" not in str(caught.value)


PAGE = b"<!DOCTYPE html><html>Please sign in</html>"


def test_a_web_page_is_not_taken_for_weights(folder, tmp_path):
    with serving(tmp_path / "served") as served:
        (tmp_path / "served" / "a.pt").write_bytes(PAGE)
        (tmp_path / "served" / "b.html").write_bytes(b"plain words")
        with pytest.raises(UserError, match=r"a.pt did not give the expected file: it is a web page.*; deleted it"):
            published.download(WeightsFile("a.pt", url=served("a.pt")))
        with pytest.raises(UserError, match="answers with a web page"):
            published.download(WeightsFile("b.pt", url=served("b.html")))
        assert not [path for path in folder.iterdir() if path.suffix != ".lock"]
        (folder / "a.pt").write_bytes(PAGE)  # of an earlier version, or saved by hand
        (tmp_path / "served" / "a.pt").write_bytes(CONTENT)
        assert published.download(WeightsFile("a.pt", url=served("a.pt"))).read_bytes() == CONTENT


def test_the_hub_is_not_asked_for_files_either_when_offline(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    file = WeightsFile("a.pt", url="https://huggingface.co/org/name/resolve/main/a.pt")
    with pytest.raises(UserError, match="is not fetched: HF_HUB_OFFLINE is set"):
        published.download(file)
    (folder / "a.pt").write_bytes(CONTENT)
    assert published.download(file) == folder / "a.pt"


def test_verify_looks_at_the_first_bytes(folder, mine, monkeypatch, capsys):
    monkeypatch.setattr(Mine, "info", ModelInfo("Mine", "audio", "", "MIT", Weights("x", "CC0", file_name="mine.pt")))
    (folder / "mine.pt").write_bytes(PAGE)
    with pytest.raises(UserError, match=r"not the published files: mine.pt"):
        weights(("mine",), verify=True)
    assert "WRONG: a web page" in capsys.readouterr().out


def test_a_failed_download_does_not_end_the_others(folder, mine, monkeypatch, capsys, tmp_path):
    with serving(tmp_path / "served") as served:
        (tmp_path / "served" / "two.pt").write_bytes(CONTENT)
        files = (WeightsFile("two.pt", url=served("two.pt")),)
        both = Weights("x", "CC0", url=served("one.pt"), file_name="one.pt", files=files)
        monkeypatch.setattr(Mine, "info", ModelInfo("Mine", "audio", "", "MIT", both))
        with pytest.raises(UserError, match=r"^1 of 2 downloads failed; named above$"):
            weights(("mine",), download=True, files="all")
    said = capsys.readouterr()
    assert (folder / "two.pt").read_bytes() == CONTENT
    assert "folder: " in said.out, "the table is printed nonetheless"
    (line,) = [line for line in said.err.splitlines() if "one.pt cannot be downloaded" in line]
    assert line.startswith("mine: ")


TEXT_SIDES = {
    "audioclip": [("openai/clip-vit-base-patch32", False)],
    "laion_clap": [("FacebookAI/roberta-base", False)],
    "m2d_clap": [("google-bert/bert-base-uncased", False), ("thenlper/gte-base", True)],
    "msclap_2022": [("google-bert/bert-base-uncased", False)],
    "msclap_2023": [("openai-community/gpt2", False)],
    "wav2clip": [("openai/clip-vit-base-patch32", True)],
    "wavcaps": [("google-bert/bert-base-uncased", False)],
}
"""What is fetched for the text side, and whether its weights are needed."""


@pytest.mark.parametrize("name", TEXT_SIDES)
def test_what_the_text_side_fetches_is_listed(name):
    sides = [need.text for need in needs_of(name) if need.text is not None]
    assert [(side.hub, side.weights) for side in sides] == TEXT_SIDES[name]
    rows = [row_of(need) for need in needs_of(name) if need.text is not None]
    assert all(row[1].startswith("hf:") and len(row) == len(HEADS) for row in rows)
    assert all(("text side" if side.weights else "tokenizer") in row[1] for side, row in zip(sides, rows, strict=True))


def test_the_text_side_is_downloaded_with_the_model(folder, mine, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "model_adapters.networks.text_files.from_hub",
        lambda repository, complete, *, weights, **_: asked.append((repository, weights)) or folder,
    )
    sides = (
        TextSide("org/words", "MIT"),
        TextSide("org/all", "MIT", weights=True),
        TextSide("a/b", "MIT", default=False),
    )
    (folder / "mine.pt").write_bytes(CONTENT)
    clap = Weights("x", "CC0", file_name="mine.pt", text=sides)
    monkeypatch.setattr(Mine, "info", ModelInfo("Mine", "audio-language", "", "MIT", clap))
    weights(("mine",), download=True)
    assert asked == [("org/words", False), ("org/all", True)]


def test_every_audio_language_model_with_a_tower_states_its_text_side():
    for name in model_names():
        published_as = model_info(name).weights
        if model_info(name).kind == "audio-language" and published_as is not None:
            assert published_as.text, name


def test_what_stands_after_the_colon_is_what_is_needed(folder, tmp_path):
    (need,) = needs_of("hf:org/name")
    assert row_of(need)[1] == "hf:org/name" and row_of(need)[3] == "fetched from the hub on first use"
    assert need.default and row_of(need)[6] == "https://huggingface.co/org/name"
    assert [need.file for need in needs_of("tag_text:gpvad")] == [need.file for need in needs_of("gpvad")]
    assert {need.model for need in needs_of("caption_map:panns")} == {"caption_map:panns"}
    assert state_in_words("tag_text:htsat") == state_in_words("htsat") == "not there"
    (folder / "org" / "name").mkdir(parents=True)
    (folder / "org" / "name" / "config.json").write_text("{}")
    assert row_of(need)[3] == state_in_words("hf:org/name") == "there"
    (tmp_path / "config.json").write_text("{}")
    assert state_in_words(f"hf:{tmp_path}") == "there"


def test_a_further_file_does_not_take_the_place_of_the_hubs_default(folder):
    for name, file in (("laion_clap", "630k-audioset-best.pt"), ("dasheng", "dasheng_base.pt")):
        (folder / file).write_bytes(CONTENT)
        (default,) = [need for need in needs_of(name) if need.default]
        assert default.file is None and default.weights.hub
        assert published.find(model_info(name).weights) is None


def test_further_repositories_are_listed(folder):
    rows = [row_of(need) for need in needs_of("eat")]
    assert [row[1].split(" ")[0] for row in rows] == [
        "hf:worstchan/EAT-base_epoch30_pretrain",
        "hf:worstchan/EAT-large_epoch20_pretrain",
        "hf:ta012/SSLAM_pretrain",
    ]
    assert [need.default for need in needs_of("eat")] == [True, False, False]


def test_audioclip_is_downloaded_from_its_release():
    assert all(
        need.file.url == f"https://github.com/AndreyGuzhov/AudioCLIP/releases/download/v0.1/{need.file.name}"
        for need in needs_of("audioclip")
        if need.file is not None
    )


def test_gpvads_file_goes_into_the_weights_folder(folder, monkeypatch, tmp_path):
    from model_adapters import gpvad

    with serving(tmp_path / "served") as served:
        (tmp_path / "served" / "g.pth").write_bytes(CONTENT)
        monkeypatch.setattr(gpvad, "WEIGHTS", Weights("x", "MIT", url=served("g.pth"), sha256=SHA, file_name="g.pth"))
        assert gpvad.published_weights() == str(folder / "g.pth")
