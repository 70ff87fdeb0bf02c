"""Another model's file: the message names the file, the family that it is of, and what is not known is refused."""

import pytest
import torch
from golden import needs_shared
from htsat_files import names_and_shapes

from evar.errors import UserError
from model_adapters.networks.checkpoints import read_checkpoint
from model_adapters.networks.misfits import family_of
from model_adapters.registry import load_model

FAMILIES = {
    "atst_clip_base": "ATST",
    "audioclip_audio": "AudioCLIP",
    "beats": "BEATs",
    "beats_openbeats": "BEATs",
    "byola_v1": "BYOL-A",
    "byola_v2_encoder": "BYOL-A",
    "ced_base_hf": "CED",
    "cnn14_16k": "a CNN14 of PANNs",
    "dasheng_base": "Dasheng",
    "eat_base_composite": "EAT or SSLAM",
    "hf_ast": "AST",
    "htsat": "HTS-AT",
    "laion_clap": "LAION-CLAP",
    "m2d_clap": "M2D or MSM-MAE",
    "msclap_2022": "MS-CLAP 2022",
    "msclap_2023": "MS-CLAP 2023",
    "passt_s_swa": "PaSST",
    "vggish": "VGGish",
    "wav2clip_encoder": "Wav2CLIP",
    "wavcaps_audio": "WavCaps",
}
"""The list of names of a published file, and what it is called."""
READERS = ("wavcaps", "laion_clap", "msclap_2022", "msclap_2023", "pengi", "audioclip", "htsat", "panns", "m2d", "ced")
SMALL = {"depth": "1", "embed_dim": "16"}


def no_values(name: str, before: str = "") -> dict[str, torch.Tensor]:
    """Return a published file's tensors, all of one stored number."""
    return {before + key: torch.zeros(()).expand(shape) for key, shape in names_and_shapes(name).items()}


def refusal(model: str, path) -> str:
    with pytest.raises(UserError) as caught:
        load_model(model, str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@needs_shared
@pytest.mark.parametrize("name", FAMILIES)
def test_every_published_file_is_known_by_its_names(name):
    assert family_of(names_and_shapes(name)) == FAMILIES[name]


@needs_shared
@pytest.mark.parametrize("model", READERS)
@pytest.mark.parametrize("data_parallel", ["", "module."])
def test_another_models_file_is_named_with_its_family(model, data_parallel, tmp_path):
    for name in ("passt_s_swa", "beats"):
        torch.save({"model": no_values(name, data_parallel)}, tmp_path / "w.pt")
        said = refusal(model, tmp_path / "w.pt")
        assert "w.pt'" in said and f"its names are those of {FAMILIES[name]}" in said


@needs_shared
def test_pengi_and_ms_clap_are_told_apart(tmp_path):
    torch.save({"model": no_values("msclap_2023")}, tmp_path / "CLAP_weights_2023.pth")
    said = refusal("pengi", tmp_path / "CLAP_weights_2023.pth")
    assert "unexpected: logit_scale. " in said and "its names are those of MS-CLAP 2023" in said


@pytest.mark.parametrize("model", ["wavcaps", "msclap_2022", "msclap_2023", "pengi", "audioclip"])
def test_nothing_of_a_file_is_left_out_in_silence(model, tmp_path, own_file, capsys):
    """What belongs to none of the model's modules is named, for a file may have more of its training than is known."""
    state, inside = own_file(model), "audio.extra.weight" if model == "audioclip" else "audio_encoder.extra.weight"
    torch.save({"model": state}, tmp_path / "right.pt")
    load_model(model, str(tmp_path / "right.pt"))
    assert not capsys.readouterr().err
    torch.save({"model": state | {inside: torch.ones(1)}}, tmp_path / "extra.pt")
    said = refusal(model, tmp_path / "extra.pt")
    assert "in 'extra.pt'" in said and f"unexpected: {inside.removeprefix('audio.')}" in said
    torch.save({"model": state | {"critic.weight": torch.ones(1)}}, tmp_path / "more.pt")
    load_model(model, str(tmp_path / "more.pt"))
    assert "in 'more.pt' have 1 tensors that" in (said := capsys.readouterr().err) and "critic.weight" in said


@pytest.mark.parametrize("model", ["wavcaps", "msclap_2022", "msclap_2023", "pengi", "audioclip"])
def test_what_data_parallel_saved_is_read_as_it_is(model, tmp_path, own_file):
    state = {f"module.{key}": value for key, value in own_file(model).items()}
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    load_model(model, str(tmp_path / "w.pt"))


def test_a_fine_tuned_m2ds_own_module_is_kept(tmp_path):
    torch.save({"module.ar.runtime.cls_token": torch.ones(1)}, tmp_path / "w.pt")
    assert list(read_checkpoint(tmp_path / "w.pt", keep_module=True)[0]) == ["module.ar.runtime.cls_token"]
    assert list(read_checkpoint(tmp_path / "w.pt")[0]) == ["ar.runtime.cls_token"]


@pytest.fixture
def own_file():
    """Return a function that gives a small file of a model, in its published names."""
    from model_adapters.networks.htsat import from_transformers

    def under(before, module):
        return {before + key: value for key, value in module.state_dict().items()}

    def htsat(before, network):
        return {before + key: value for key, value in from_transformers(network.encoder.state_dict()).items()}

    def state(model):
        if model == "audioclip":
            adapter = load_model(model, "random", {"depth": "1", "width": "16"}).adapter
            return under("audio.", adapter.network) | {"visual.conv1.weight": torch.ones(1)}
        if model == "msclap_2022":
            adapter = load_model(model, "random", {"width": "2"}).adapter
            audio = under("audio_encoder.base.", adapter.network)
        else:
            adapter = load_model(model, "random", SMALL).adapter
            before = "audio_encoder.audio_enc." if model == "wavcaps" else "audio_encoder.base.htsat."
            audio = htsat(before, adapter.network)
        if model == "wavcaps":
            sides = under("audio_proj.", adapter.audio_proj) | under("text_proj.", adapter.text_proj)
            return audio | sides | {"temp": torch.tensor(0.07)}
        audio |= under("audio_encoder.projection.", adapter.audio_proj)
        if model == "pengi":
            return audio | {"caption_decoder.gpt.transformer.wte.weight": torch.ones(1)}
        return audio | under("caption_encoder.projection.", adapter.text_proj) | {"logit_scale": torch.ones(())}

    return state
