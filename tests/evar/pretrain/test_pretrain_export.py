"""Exports load as the checkpoint does and are small; what has no geometry in its name is refused."""

import pytest
import torch
from commands import evar
from pretrain_small import small

from evar.errors import UserError
from evar.pretrain.export import export
from evar.pretrain.files import published_state, write_checkpoint
from model_adapters.registry import load_model

NAME = "m2d_vit_d48x2-80x96p16x16-test"


@pytest.mark.parametrize("form", ["encoder", "safetensors", "full"])
def test_an_export_gives_the_same_embeddings(form, tmp_path, capsys):
    path = write_checkpoint(tmp_path / NAME, published_state(small()), 7, {"preset": "test"}, "full")
    export(str(path), form=form, out=tmp_path / "small")
    written = capsys.readouterr().out.strip()
    assert written.startswith(str(tmp_path / "small" / NAME)) and "-7." in written
    waves = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    one, other = (load_model("m2d", p, {"heads": "3"}).adapter for p in (str(path), written))
    lengths = torch.full((2,), 16000)
    assert torch.equal(one.embed(waves, lengths), other.embed(waves, lengths))
    assert other.made_by == {"preset": "test", "exported_from": "checkpoint-7.pth"}


def test_a_file_without_encoder_or_geometry_is_one_line(tmp_path):
    (tmp_path / "mine").mkdir()
    torch.save({"x": torch.zeros(2)}, tmp_path / "mine" / "other.pth")
    with pytest.raises(UserError, match="has no encoder"):
        export(str(tmp_path / "mine" / "other.pth"))
    path = write_checkpoint(tmp_path / "mine", published_state(small()), 1, {}, "full")
    done = evar("pretrain.export", path, cache=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "evar.pretrain.export: error: neither checkpoint-1.pth nor its folder says the geometry, such as "
        "m2d_vit_base-80x608p16x16-mine: rename the folder"
    ]
