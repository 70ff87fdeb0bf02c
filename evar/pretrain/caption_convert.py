"""Reading the reference's files of caption embeddings: ``.npy`` with a pickled dictionary (MODELS 9).

A pickle is a program. This reader runs it with nothing to call but the stand-ins below, which are plain Python and only
take down what an array was made of: no function of numpy or of any other package sees what the file says. It is used by
``python -m evar.pretrain.captions --convert`` alone.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evar.errors import UserError
from evar.pretrain.caption_keys import Row
from evar.pretrain.caption_readers import id_key
from evar.pretrain.caption_tables import CaptionTable, table_of

_TYPES = {"f2": "<f2", "f4": "<f4", "f8": "<f8"}
_MOST_HEADER = 1 << 16


class Refused(Exception):
    """The pickle asks for something that is not on the list."""


class _Dtype:
    """Stands for ``numpy.dtype``: its code and byte order."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


class _Array:
    """Stands for ``numpy.ndarray``: shape, type, order and raw bytes (or the list of an array of objects)."""

    def __init__(self, *_: object) -> None:
        self.shape: Any = None
        self.dtype: Any = None
        self.fortran: Any = False
        self.raw: Any = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.raw = state


def _scalar(dtype: object = None, raw: object = b"") -> _Array:
    found = _Array()
    found.shape, found.dtype, found.raw = (), dtype, raw
    return found


def _from_buffer(raw: object = b"", dtype: object = None, shape: object = None, order: object = "C") -> _Array:
    found = _Array()
    found.shape, found.dtype, found.fortran, found.raw = shape, dtype, order == "F", raw
    return found


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Dtype}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[_core + ".multiarray", "_reconstruct"] = _Array
    _ALLOWED[_core + ".multiarray", "scalar"] = _scalar
    _ALLOWED[_core + ".numeric", "_frombuffer"] = _from_buffer


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise Refused(f"{module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise Refused("a persistent object")


def read_pickled_dictionary(path: Path) -> dict[str, NDArray[np.floating]]:
    """Return ``{key: [k, d]}`` of a ``.npy`` file of one pickled dictionary of text to arrays ``(d,)`` or ``(k, d)``.

    Raises :class:`UserError` for any other content; of what a pickle asks for beyond dictionaries, text and arrays it
    names the first and runs nothing.
    """
    try:
        with path.open("rb") as handle:
            _skip_header(handle, path)
            found = _Reader(handle).load()
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except Refused as refused:
        raise UserError(
            f"{path} is refused: its pickle asks for {refused}, and nothing but dictionaries, text and numpy arrays is "
            "read; nothing was run"
        ) from None
    except UserError:
        raise
    except Exception as error:  # a broken or ill-meant pickle can fail in any way
        raise UserError(f"{path} cannot be read as a pickled dictionary: {type(error).__name__}") from None
    if isinstance(found, _Array) and isinstance(found.raw, list) and len(found.raw) == 1:
        found = found.raw[0]  # what numpy.save makes of a dictionary: an array of one object
    if not isinstance(found, dict) or not found:
        raise UserError(f"{path} does not hold a dictionary of embeddings")
    return {_key(key, path): _vectors(key, value, path) for key, value in found.items()}


def _skip_header(handle: io.BufferedReader, path: Path) -> None:
    """Go on to the pickle. The header is text that numpy would evaluate as literals; here it is not needed."""
    magic = handle.read(8)
    if magic[:6] != b"\x93NUMPY":
        raise UserError(f"{path} is no .npy file")
    size = int.from_bytes(handle.read(2 if magic[6] == 1 else 4), "little")
    header = handle.read(min(size, _MOST_HEADER))
    if b"'|O'" not in header:
        raise UserError(f"{path} holds an array of numbers, not a pickled dictionary of embeddings")


def _key(key: object, path: Path) -> str:
    if not isinstance(key, str):
        raise UserError(f"{path}: the dictionary has a key that is no text ({type(key).__name__})")
    return key


def _vectors(key: str, value: object, path: Path) -> NDArray[np.floating]:
    shape = value.shape if isinstance(value, _Array) else None
    dtype = value.dtype if isinstance(value, _Array) else None
    ok = isinstance(shape, tuple) and len(shape) in (1, 2) and all(isinstance(n, int) and n > 0 for n in shape)
    if not ok or not isinstance(dtype, _Dtype) or dtype.code not in _TYPES or dtype.order not in ("<", "|", "="):
        raise UserError(f"{path}: the value of '{key}' is no array (d,) or (k, d) of floating-point numbers")
    assert isinstance(value, _Array) and isinstance(shape, tuple)
    kind = np.dtype(_TYPES[dtype.code])
    if not isinstance(value.raw, bytes | bytearray) or len(value.raw) != kind.itemsize * math.prod(shape):
        raise UserError(f"{path}: the array of '{key}' has not as many bytes as its shape {shape} asks for")
    flat = np.frombuffer(value.raw, kind)
    return flat.reshape(shape, order="F" if value.fortran else "C").reshape(-1, shape[-1])


@dataclass(frozen=True)
class Converted:
    """Dictionaries of embeddings as tables without text: a caption is ``<number of the vector>``."""

    tables: list[CaptionTable]
    vectors: list[NDArray[np.floating]]
    """``[R]`` of ``[E]``: by number."""

    @property
    def dim(self) -> int:
        """E."""
        return len(self.vectors[0])


def dictionary_files(places: Sequence[Path]) -> list[Path]:
    """Return the files that ``places`` name, and all ``.npy`` files of folders, sorted; :class:`UserError` if none."""
    paths = [one for place in places for one in (sorted(place.glob("*.npy")) if place.is_dir() else [place])]
    if not paths:
        raise UserError(f"there is no .npy file in {', '.join(map(str, places))}")
    return paths


def read_dictionaries(paths: Sequence[Path]) -> Converted:
    """Return the content of files of one text encoder; :class:`UserError` if vectors differ in length."""
    tables: list[CaptionTable] = []
    vectors: list[NDArray[np.floating]] = []
    for path in paths:
        tables.append(table_of(path.stem, _numbered(read_pickled_dictionary(path), vectors, path)))
    return Converted(tables, vectors)


def _numbered(found: dict[str, NDArray[np.floating]], vectors: list[NDArray[np.floating]], path: Path) -> Iterator[Row]:
    for key, rows in found.items():
        for vector in rows:
            vectors.append(vector)
            if len(vector) != len(vectors[0]):
                raise UserError(
                    f"{path}: the embedding of '{key}' has {len(vector)} numbers, others have {len(vectors[0])}: "
                    "convert files of one text encoder"
                )
            yield Row(id_key(key, "", str(path)), str(len(vectors) - 1))
