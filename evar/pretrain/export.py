"""Export a checkpoint for use: ``python -m evar.pretrain.export CHECKPOINT --form=encoder|safetensors|full``."""

from __future__ import annotations

import re
from pathlib import Path

from evar.cli import main
from evar.errors import UserError
from evar.pretrain.files import Form, write_checkpoint
from model_adapters.networks.checkpoints import find_checkpoint, read_checkpoint
from model_adapters.networks.m2d_files import facts_beside, geometry_of_name


def export(checkpoint: str, *, form: Form = "encoder", out: Path | None = None) -> None:
    """Write what inference needs of a checkpoint, under the published names, and print the file.

    The folder's name says the geometry to the adapters: it is kept.

    Args:
        checkpoint: file, or folder that holds one
        form: encoder (a flat .pth without predictor and target), safetensors (the same), or full (all tensors)
        out: folder in which the checkpoint's own folder is made again (default: a folder exported beside it)
    """
    path = find_checkpoint(checkpoint)
    state, _ = read_checkpoint(path, keep_module=True)
    if not any(name.endswith("patch_embed.proj.weight") for name in state):
        raise UserError(f"{path} has no encoder of an M2D or MSM-MAE in it")
    if geometry_of_name(path) is None:
        raise UserError(
            f"neither {path.name} nor its folder says the geometry, such as m2d_vit_base-80x608p16x16-mine: rename the "
            "folder"
        )
    found = re.search(r"(\d+)$", path.stem)
    folder = (out or path.parent.parent / "exported") / path.parent.name
    facts = facts_beside(path) | {"exported_from": path.name}
    print(write_checkpoint(folder, state, int(found[1]) if found else 0, facts, form))


if __name__ == "__main__":
    main(export)
