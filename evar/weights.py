"""The weights of the models: what each needs, where it is published, whether it lies here; downloads and checks.

python -m evar.weights [NAME[,NAME]] [--download] [--verify] [--format=table|markdown|csv]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from evar.cli import main
from evar.errors import UserError
from evar.fetch.download import matches
from evar.fetch.first_bytes import not_weights
from evar.fetch.hub import from_hub, in_hub_cache, tokenizer_in_hub_cache
from evar.fetch.published import download, lies_at, state_of, weights_dir
from evar.model_list import Format, chosen_models, formatted
from evar.progress import say
from model_adapters.base import TextSide, Weights, WeightsFile
from model_adapters.networks.checkpoints import sha256_of
from model_adapters.registry import adapter_class, model_info

HEADS = ("model", "file", "size", "state", "licence", "checksum", "published at")
Part = Literal["default", "all"]


class Need(NamedTuple):
    """One file or one hub repository that a model can take."""

    model: str
    weights: Weights
    file: WeightsFile | None
    """None for a hub repository, or where no file name is stated."""
    default: bool
    """Whether it is taken when ``--weights`` is left out."""
    text: TextSide | None = None
    """For what the text side fetches from the hub."""


def weights(
    names: tuple[str, ...] = (),
    *,
    download: bool = False,
    verify: bool = False,
    files: Part = "default",
    format: Format = "table",
) -> None:
    """List what weights each model needs, where they are published, under which licence, and whether they lie here.

    Files lie in $EVAR_WEIGHTS (default: weights in the cache) under the names shown; there a model finds them without
    --weights, and by name with --weights=NAME.

    Args:
        names: model names, comma-separated, with wildcards; all if left out
        download: fetch what is not there, where the licence lets anybody do so; a broken download is taken up again
        verify: read every file that is there and compare its checksum
        files: what to download: default, the file a model takes by itself, or all of its published files
        format: table, markdown or csv
    """
    if download and not names:
        raise UserError("--download needs the models' names: python -m evar.weights NAME[,NAME] --download ('*': all)")
    needs = [need for name in chosen_models(names) for need in needs_of(name)]
    failed: list[str] = []
    wanted = [need for need in needs if need.default or files == "all"] if download else []
    if download:
        by_hand = _downloaded(wanted, failed)
        print("\n".join(_by_hand(by_hand)), end="\n\n" if by_hand else "")
    checked = {need: _verified(need.file) for need in needs if need.file is not None} if verify else {}
    rows = [row_of(need, checked.get(need, "")) for need in needs]
    print(formatted(HEADS, rows, format, clip={5: 19}))
    if format == "table":
        print(f"\nfolder: {weights_dir()}")
    for line in failed:
        say(line)
    if failed:
        raise UserError(f"{len(failed)} of {len(wanted)} downloads failed; named above")
    wrong = [need.file.name for need, found in checked.items() if found.startswith("WRONG") and need.file is not None]
    if wrong:
        raise UserError(f"not the published files: {', '.join(wrong)}; delete them and download them again")


def needs_of(name: str) -> list[Need]:
    """Return every file or repository of a model; nothing for one without weights."""
    published = _published(name)
    if isinstance(published, str):
        return [need._replace(model=name) for need in needs_of(published)]
    if published is None:
        return []
    files = published.all_files()
    needs = [Need(name, published, file, bool(published.file_name) and n == 0) for n, file in enumerate(files)]
    if published.hub or not files:
        needs.insert(0, Need(name, published, None, not published.file_name))
    for hub, note in published.further_hubs:
        own = replace(published, source=f"https://huggingface.co/{hub}", hub=hub, hub_size=0, note=note)
        needs.append(Need(name, own, None, False))
    return needs + [Need(name, published, None, side.default, side) for side in published.text]


def _published(name: str) -> Weights | str | None:
    """Return a model's weights, or the name of the model whose weights they are (``tag_text:gpvad``)."""
    cls, argument, _ = adapter_class(name)
    given = cls.weights_of(argument) if argument is not None else None
    return given if given is not None else model_info(name).weights


def row_of(need: Need, checked: str = "") -> tuple[str, ...]:
    """Return a need as texts, in the order of ``HEADS``."""
    file, published = need.file, need.weights
    if need.text is not None:
        side = need.text
        what = "text side" if side.weights else "tokenizer"
        name = f"hf:{side.hub} ({', '.join(filter(None, (what, side.note)))})"
        return (need.model, name, "?", text_state(side), side.licence, "-", f"https://huggingface.co/{side.hub}")
    if file is None:
        name = (f"hf:{published.hub}" + (f" ({published.note})" if published.note else "")) if published.hub else "-"
        size = size_text(published.hub_size) if published.hub_size else "?"
        return (need.model, name, size, hub_state(published), published.licence, "-", published.source)
    size = size_text(file.size) if file.size else "?"
    where = file.url or published.source
    return (need.model, _label(file), size, checked or state_of(file), published.licence, file.checksum or "-", where)


def state_in_words(name: str) -> str:
    """Return in a few words whether a model can run now: none needed, there, not there and how it gets there."""
    if isinstance(base := _published(name), str):
        return state_in_words(base)
    needs = needs_of(name)
    if not needs:
        return "none needed" if not model_info(name).needs_weights else "yours"
    need = next((need for need in needs if need.default), needs[0])
    own_way = not model_info(name).needs_weights and not need.weights.hub and (need.file is None or not need.file.url)
    if own_way and (need.file is None or lies_at(need.file) is None):
        return "found by the model itself"
    if need.file is None:
        return hub_state(need.weights)
    found = state_of(need.file)
    return "downloaded on first use" if found == "not there" and need.file.url else found


def hub_state(published: Weights) -> str:
    """Return the state of weights that come from the hub, or whose file has no stated name."""
    if not published.hub:
        return "by hand"
    folders = (weights_dir() / published.hub, Path(published.hub).expanduser())
    if any((folder / "config.json").is_file() for folder in folders) or in_hub_cache(published.hub):
        return "there"
    return "fetched from the hub on first use"


def text_state(side: TextSide) -> str:
    """Return the state of what a text side fetches from the hub at the first sentence."""
    there = tokenizer_in_hub_cache(side.hub) and (not side.weights or in_hub_cache(side.hub))
    return "there" if there else "fetched from the hub at the first sentence"


def size_text(size: int) -> str:
    """Return a number of bytes as "3.3 MB" or "1.2 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _label(file: WeightsFile) -> str:
    return f"{file.name} ({file.note})" if file.note else file.name


def _downloaded(needs: Iterable[Need], failed: list[str]) -> list[Need]:
    """Download what anybody may, and return what a person has to fetch; a failure is a line in ``failed``."""
    by_hand = []
    for need in needs:
        try:
            if not _brought(need):
                by_hand.append(need)
        except UserError as error:
            failed.append(f"{need.model}: {error}")
    return by_hand


def _brought(need: Need) -> bool:
    """Download one need, if anybody may; False where a person has to do it."""
    file, published = need.file, need.weights
    if need.text is not None:
        from model_adapters.networks.text_files import locate

        say(f"{need.model}: {locate(need.text.hub, weights=need.text.weights).folder}")
    elif file is None and published.hub:
        here = Path(published.hub).expanduser()
        say(f"{need.model}: {here if here.is_dir() else from_hub(published.hub)}")
    elif file is not None and file.url:
        say(f"{need.model}: {download(file)}")
    else:
        return file is not None and lies_at(file) is not None
    return True


def _by_hand(needs: Iterable[Need]) -> Iterable[str]:
    """Yield a line per model: where its files are fetched by hand, under which licence, and where they are put."""
    of_model: dict[tuple[str, Weights], list[WeightsFile]] = {}
    for need in needs:
        of_model.setdefault((need.model, need.weights), []).extend([need.file] if need.file is not None else [])
    for (model, published), files in of_model.items():
        what = f"{', '.join(map(_label, files))}, to be put into {weights_dir()}" if files else "its weights"
        yield f"{model}: by hand from {published.source} ({published.licence}): {what}"


def _verified(file: WeightsFile) -> str:
    """Return the state of a file once its bytes were read."""
    path: Path | None = lies_at(file)
    found = state_of(file)
    if path is None or found != "there":
        return f"WRONG: {found}" if path is not None else found
    if path.is_dir():
        return "there (no checksum is published)"
    if said := not_weights(path):
        return f"WRONG: {said}"
    if not file.checksum:
        return f"there, sha256 {sha256_of(path)} (none is published)"
    return "verified" if matches(path, file.checksum) else "WRONG checksum"


if __name__ == "__main__":
    main(weights)
