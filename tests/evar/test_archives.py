"""Archives: unpacked whole or not at all, and never outside their folder."""

import io
import stat
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evar import archives
from evar.archives import unpack
from evar.errors import UserError

FILES = {"ESC-50-master/meta/esc50.csv": b"filename,fold\n", "ESC-50-master/audio/1-100032-A-0.wav": b"RIFF" * 2000}


def make_zip(path, files, mode=0o100644):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


def make_tar(path, files, kind=tarfile.REGTYPE, link=""):
    form = {".gz": "w:gz", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def make(folder, name, files=FILES):
    return (make_zip if name.endswith("zip") else make_tar)(folder / name, files)


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"])
def test_an_archive_is_unpacked(tmp_path, name):
    unpack(make(tmp_path, name), tmp_path / "data" / "esc50")
    assert tree(tmp_path / "data") == {f"esc50/{name}": content for name, content in FILES.items()}


def test_a_second_archive_is_added_to_the_folder(tmp_path):
    target = tmp_path / "data"
    unpack(make(tmp_path, "a.zip", {"x/1": b"1", "x/2": b"2"}), target)
    unpack(make(tmp_path, "b.tar.gz", {"x/2": b"new", "x/3": b"3"}), target)
    assert tree(target) == {"x/1": b"1", "x/2": b"new", "x/3": b"3"}


@pytest.mark.parametrize("name", ["../evil", "x/../../evil", "/evil", "..\\evil", "C:\\evil", "x\\..\\..\\evil"])
@pytest.mark.parametrize("form", ["a.zip", "a.tar"])
def test_members_outside_the_folder_are_refused(tmp_path, form, name):
    archive = make(tmp_path, form, {"good": b"1", name: b"evil"})
    with pytest.raises(UserError, match=f"{form} is refused: its member .* would land outside the folder"):
        unpack(archive, tmp_path / "deep" / "data")
    assert tree(tmp_path).keys() == {form}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_special_files_of_a_tar_are_refused(tmp_path, kind):
    archive = make_tar(tmp_path / "a.tar", {"x": b""}, kind, "/etc/passwd")
    with pytest.raises(UserError, match="its member 'x' is a link or a special file"):
        unpack(archive, tmp_path / "data")
    assert tree(tmp_path).keys() == {"a.tar"}


def test_links_of_a_zip_are_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"x": b"/etc/passwd"}, stat.S_IFLNK | 0o777)
    with pytest.raises(UserError, match="its member 'x' is a link or a special file"):
        unpack(archive, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_bombs_are_refused_before_anything_is_written(tmp_path, name, monkeypatch):
    archive = make(tmp_path, name, {"zeros": bytes(3_000_000)})
    monkeypatch.setattr(archives, "MAX_RATIO", 2)  # of a megabyte: what a small archive may grow to
    with pytest.raises(UserError, match=rf"{name} is refused: it would unpack to 0.0 GB"):
        unpack(archive, tmp_path / "data")
    assert tree(tmp_path).keys() == {name}


def test_an_encrypted_zip_is_named(tmp_path):
    content = bytearray(make(tmp_path, "a.zip").read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + flags] |= 1
            at = content.find(signature, at + 4)
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.zip is encrypted; unpack it by hand"):
        unpack(tmp_path / "a.zip", tmp_path / "data")


def test_what_is_no_archive_is_named(tmp_path):
    (tmp_path / "a.zip").write_text("<html>404</html>")
    with pytest.raises(UserError, match="is neither a zip nor a tar archive"):
        unpack(tmp_path / "a.zip", tmp_path / "data")
    assert tree(tmp_path).keys() == {"a.zip"}


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.xz"])
def test_a_truncated_or_damaged_archive_leaves_nothing_behind(room, name):
    noise = bytes((n * n * 31 + n // 7) % 251 for n in range(5000))
    whole = make(room, name, {"a/1": noise, "a/2": noise[::-1]}).read_bytes()
    archive, target = room / f"damaged-{name}", room / "data"

    def is_refused(content):
        archive.write_bytes(content)
        with pytest.raises(UserError, match=r"cannot be unpacked|neither a zip nor a tar|refused|encrypted"):
            unpack(archive, target)
        assert not target.exists()
        assert not [p for p in room.iterdir() if p.name.endswith(".part")]

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, len(whole) * 3 // 4))
    def truncated(size):
        is_refused(whole[:size])

    @settings(max_examples=40, deadline=None)
    @given(st.integers(100, len(whole) // 2), st.integers(1, 255))
    def damaged(at, change):
        try:
            is_refused(whole[:at] + bytes([whole[at] ^ change]) + whole[at + 1 :])
        except pytest.fail.Exception:  # a byte without meaning (a date, a mode): then all files are there, and right
            assert sorted(tree(target).values()) == sorted([noise, noise[::-1]])
            for file in sorted(target.rglob("*"), reverse=True):
                file.unlink() if file.is_file() else file.rmdir()
            target.rmdir()

    truncated()
    damaged()
