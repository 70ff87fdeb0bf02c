"""Why a file's tensors do not fit a network: the likely cause, in a sentence a user can act on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

Shape = tuple[int, ...]

DATA_PARALLEL = "module."
"""What torch.nn.DataParallel writes before every name."""
_HEADS = (
    "head", "mlp_head", "classifier", "predictor", "outputlayer", "fc_audioset", "tscam_conv", "logits", "fc_norm",
)  # fmt: skip
_CED_OR_DASHENG = "CED or Dasheng"
_NUMBERED = re.compile(r"^(.*?(?:blocks?|layers?))\.(\d+)\.")
_FAMILIES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("audio_branch.",), "LAION-CLAP"),
    (("audio_model.audio_encoder.",), "LAION-CLAP"),
    (("audio_encoder.base.htsat.", "caption_decoder."), "Pengi"),
    (("audio_encoder.base.htsat.", "logit_scale"), "MS-CLAP 2023"),
    (("base.htsat.",), "MS-CLAP 2023 or Pengi"),
    (("base.conv_block",), "MS-CLAP 2022"),
    (("audio_encoder.audio_enc.",), "WavCaps"),
    (("fbsp",), "AudioCLIP"),
    (("tscam_conv",), "HTS-AT"),
    (("attention.self.relative_position_bias_table",), "HTS-AT as transformers has it"),
    (("relative_attention_bias",), "BEATs"),
    (("grep_linear",), "BEATs"),
    (("modality_encoders.",), "EAT or SSLAM"),
    (("local_encoder.proj.", "extra_tokens"), "EAT or SSLAM"),
    (("init_bn.1.",), "Dasheng"),
    (("init_bn.", "outputlayer."), "CED"),
    (("init_bn.", "freq_pos_embed"), _CED_OR_DASHENG),
    (("patch_embed.patch_embed.",), "ATST"),
    (("freq_new_pos_embed",), "PaSST"),
    (("conv_block1.", "logmel_extractor."), "a CNN14 of PANNs"),
    (("audio_transform.sequential",), "Wav2CLIP"),
    (("encoder.spectrogram.", "encoder.layer1."), "Wav2CLIP"),
    (("embeddings.distillation_token",), "AST"),
    (("v.dist_token", "mlp_head."), "AST in its authors' form: convert it, or take the one on the hub"),
    (("feature_extractor.conv_layers",), "wav2vec 2.0, HuBERT, WavLM or data2vec"),
    (("encoder.layers.0.fc1",), "Whisper"),
    (("module.ar.runtime.",), "M2D or MSM-MAE"),
    (("pos_embed", "patch_embed.proj.", "blocks.0.attn.qkv."), "M2D or MSM-MAE"),
    (("pos_embed", "patch_embed.proj.", "blocks.0.attn.q_bias"), "M2D or MSM-MAE"),
    (("features.0.", "embeddings.0."), "VGGish"),
    (("features.0.", "fc.0."), "BYOL-A"),
    (("features.0.block.", "outputlayer."), "GPVAD"),
    (("word_embeddings",), "a text encoder"),
)
"""Pieces of names that only this family's published files have together; the first that fits counts."""


def family_of(given: Mapping[str, Shape]) -> str:
    """Return the family whose published files have such names (and shapes, where names do not tell); empty if none."""
    for pieces, family in _FAMILIES:
        if all(any(piece in key for key in given) for piece in pieces):
            rows = next((shape[2] for key, shape in given.items() if "freq_pos_embed" in key and len(shape) == 4), 0)
            # One patch as high as all bands is Dasheng's; CED has four rows of them.
            return (("Dasheng" if rows == 1 else "CED") if rows else family) if family == _CED_OR_DASHENG else family
    return ""


def of_another_model(model: str, absent: Sequence[str], given: Mapping[str, Shape], what: str = "") -> str:
    """Return the message for tensors ``given`` among which those of ``model`` are not: ``absent`` were looked for."""
    some = ", ".join(list(given)[:3])
    return (
        f"the weights {what or 'given'} are not those of {model}: {', '.join(absent)} not among them (they have "
        f"{some}, …). {cause_of_another(model, given)}"
    )


def cause_of_another(model: str, given: Mapping[str, Shape]) -> str:
    """Return the likely cause why tensors are not those of ``model``, from the names of all of them."""
    family = family_of(given)
    if family and family != model:
        return f"The file is of another model; its names are those of {family}."
    if family:
        return "The file is incomplete, or of another form or version of this model."
    return "The file is of another model, or of a form that is not known."


def likely_cause(wanted: Mapping[str, Shape], given: Mapping[str, Shape]) -> str:
    """Return the likely cause why tensors ``given`` (shapes by name) are not those ``wanted``."""
    missing, unexpected = wanted.keys() - given.keys(), given.keys() - wanted.keys()
    misshapen = {key for key in wanted.keys() & given.keys() if wanted[key] != given[key]}
    return (
        _prefix(wanted, given)
        or _other_model(wanted, given, missing)
        or _head(wanted, given, missing, unexpected, misshapen)
        or _depth(wanted, given, missing | unexpected)
        or _size(wanted, given, misshapen)
        or "The file is of another version of this model, or incomplete."
    )


def _prefix(wanted: Mapping[str, Shape], given: Mapping[str, Shape]) -> str:
    """Return the sentence for names that fit but for what stands before them in the file, or is left out there."""
    prefix, count = _common_prefix(given, wanted)
    if count * 2 > max(len(wanted), sum(key.startswith(prefix) for key in given)):
        by = " (torch.nn.DataParallel saves so)" if prefix == DATA_PARALLEL else ""
        return f"Its names fit but for '{prefix}' before them{by}: save the file without it."
    prefix, count = _common_prefix(wanted, given)
    if count * 2 > len(given) and count > 1:
        return f"Its names fit but for '{prefix}', which they lack: the file holds that part of the model alone."
    return ""


def _common_prefix(long: Collection[str], short: Collection[str]) -> tuple[str, int]:
    """Return the most frequent prefix that names of ``long`` have before a name of ``short``, and how often."""
    found: Counter[str] = Counter()
    for key in long:
        parts = key.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in short and key not in short:
                found[".".join(parts[:cut]) + "."] += 1
                break
    return found.most_common(1)[0] if found else ("", 0)


def _other_model(wanted: Mapping[str, Shape], given: Mapping[str, Shape], missing: Collection[str]) -> str:
    if len(missing) * 2 <= len(wanted):
        return ""
    family = family_of(given)
    if family and family != family_of(wanted):
        return f"The file is of another model; its names are those of {family}."
    return "The file is of another model."


def _is_head(key: str) -> bool:
    return any(part in _HEADS or part.startswith("head") for part in key.split("."))


def _head(
    wanted: Mapping[str, Shape],
    given: Mapping[str, Shape],
    missing: Collection[str],
    unexpected: Collection[str],
    misshapen: Collection[str],
) -> str:
    if not all(map(_is_head, [*missing, *unexpected, *misshapen])):
        return ""
    if unexpected and not missing:
        return "The file has a classification head: it was fine-tuned, and a pre-trained one is expected here."
    if missing and not unexpected:
        return "The file has no classification head: it was pre-trained only, and a fine-tuned one is expected here."
    classes = next((f" ({given[key][0]} classes and not {wanted[key][0]})" for key in sorted(misshapen)), "")
    return f"Its classification head is another one{classes}: the file was fine-tuned on other data."


def _depth(wanted: Mapping[str, Shape], given: Mapping[str, Shape], different: Collection[str]) -> str:
    """Return the sentence for a file that has more or fewer layers than the network."""
    for stack in sorted({match[1] for key in different if (match := _NUMBERED.match(key))}):
        ours, theirs = (
            1 + max((int(m[2]) for key in names if (m := _NUMBERED.match(key)) and m[1] == stack), default=-1)
            for names in (wanted, given)
        )
        if ours != theirs and theirs and ours:
            return (
                f"Another size: the file has {theirs} layers ('{stack}') and the network {ours}; it is of another "
                "variant of this model, or an option does not match it."
            )
    return ""


def _size(wanted: Mapping[str, Shape], given: Mapping[str, Shape], misshapen: Collection[str]) -> str:
    if not misshapen:
        return ""
    if all("pos_embed" in key or "position" in key for key in misshapen):
        return "Only tables of positions differ: the file was made for another input length; see the model's options."
    if all(len(wanted[key]) == len(given[key]) for key in misshapen):
        vectors = [key for key in misshapen if len(wanted[key]) == 1]  # of norms, as wide as the network
        pairs = ((given[key][0], wanted[key][0]) for key in vectors or misshapen)
        ratios = Counter(pair for pair in pairs if pair[0] != pair[1])
        widths = "{} and not {} wide".format(*ratios.most_common(1)[0][0]) if ratios else "other shapes"
        return f"Another size ({widths}): the file is of another variant of this model, or an option does not match it."
    return "Tensors of another rank: the file is of another variant of this model."
