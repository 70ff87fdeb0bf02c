"""What lies under a weights file's name when it is no weights file, told by its first bytes and a zip's table."""

from __future__ import annotations

import zipfile
from pathlib import Path

_SEEN = 4096
_QUOTED = 60
_UNDER_A_WRONG_NAME = {
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"RIFF": "a RIFF file (WAV?), not weights",
    b"\x89PNG": "a picture, not weights",
    b"\x93NUMPY": "a numpy array, not a model's weights",
}
_INSIDE = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".th")


def not_the_file(path: Path) -> str:
    """Return what a server, or git, gave in the place of a file, in words after "it is"; empty if it is not known.

    Web pages, JSON and git-lfs pointers: no file of weights begins like them.
    """
    head = _head(path)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        return "a web page, not weights: download it in a browser, or by the link of the file itself"
    if text.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, which stands for the weights: fetch them with git lfs pull"
    if text.startswith(b"{") and (said := _readable(head)):
        return f"JSON, not weights ({said}): it may be a server's refusal, or a settings file"
    return ""


def not_weights(path: Path) -> str:
    """Return what a file is that could not be read as weights, and what to do, in words after "it is".

    Empty if its first bytes do not say it.
    """
    if said := not_the_file(path):
        return said
    head = _head(path)
    if not head:
        return "empty: download it again"
    if not any(head):
        return "full of zeros where it begins: it was never wholly written; download it again"
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "" if path.suffix == ".safetensors" else "a safetensors file: rename it to .safetensors"
    for mark, what in _UNDER_A_WRONG_NAME.items():
        if head.startswith(mark):
            return what
    said = _readable(head)
    return f"a text, not weights: '{said}'" if said else ""


def _archive(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        return "cut: its end is missing; download it again"
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except (zipfile.BadZipFile, OSError):
        return "a damaged zip archive: download it again"
    if any("/code/" in name and name.endswith(".py") for name in names):
        return "a TorchScript archive, a program with its weights: save the model's state_dict with torch.save"
    if names and all(name.endswith(".npy") for name in names):
        return "an .npz of numpy arrays, not a torch file"
    if any(name.endswith("/data.pkl") for name in names):
        return "a torch file: rename it to .pt" if path.suffix == ".safetensors" else ""
    inside = next((name for name in names if name.endswith(_INSIDE)), "")
    if inside:
        return f"a zip with {inside} in it: unpack it, and keep the folder's name"
    return f"a zip archive without weights (in it: {', '.join(sorted(names)[:3]) or 'nothing'})"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_SEEN)


def _readable(head: bytes) -> str:
    """Return the beginning of a text in one line; empty for what is none."""
    text = head.decode("utf-8", errors="ignore")
    strange = sum(not (letter.isprintable() or letter in "\r\n\t") for letter in text)
    if strange or len(text.encode()) < len(head) - 3:  # a letter may be cut in two at the end
        return ""
    line = " ".join(text.split())
    return line[:_QUOTED] + ("…" if len(line) > _QUOTED else "")
