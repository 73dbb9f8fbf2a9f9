"""Avatars: what is accepted, what becomes of it, and how it is served."""

import struct
import zlib
from io import BytesIO

import pytest
from guestbook import avatars
from guestbook.models import Account, db
from PIL import Image
from werkzeug.datastructures import FileStorage


def image(kind="PNG", size=(300, 200), **options):
    content = BytesIO()
    Image.new("RGB", size, "teal").save(content, kind, **options)
    return content.getvalue()


def bomb():
    """A PNG of a few bytes that says it has 40,000 by 40,000 pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.fixture
def ada(visitor, instance):
    return visitor().sign_up("ada")


def upload(visitor, content, name="me.png"):
    return visitor.send("/account/avatar", page="/account", image=(BytesIO(content), name))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_picture_is_encoded_again_and_served_as_an_image(app, ada, instance, kind):
    assert upload(ada, image(kind), "../../evil.html").status_code == 303
    (file,) = (instance / "avatars").iterdir()
    answer = ada.get(f"/avatars/{file.name}")
    assert answer.mimetype == "image/webp"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert "immutable" in answer.headers["Cache-Control"]
    assert Image.open(BytesIO(answer.data)).size == (128, 128)
    ada.send("/", message="Hello")
    assert f'src="/avatars/{file.name}"' in ada.get("/").text


def test_place_and_camera_are_removed(app, ada, instance):
    exif = Image.Exif()
    exif[0x010F] = "A camera with a serial number"
    upload(ada, image("JPEG", exif=exif))
    (file,) = (instance / "avatars").iterdir()
    assert b"serial" not in file.read_bytes()
    assert not Image.open(file).getexif()


def test_new_picture_replaces_the_old_one(app, ada, instance):
    upload(ada, image())
    (first,) = (instance / "avatars").iterdir()
    upload(ada, image(size=(50, 50)))
    (second,) = (instance / "avatars").iterdir()
    assert first.name != second.name
    with app.app_context():
        assert db.session.query(Account).one().avatar == second.name


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "PNG, JPEG or WebP"),
        (b"<html><script>alert(1)</script>", "PNG, JPEG or WebP"),
        (b"\x89PNG\r\n\x1a\n<script>", "PNG, JPEG or WebP"),
        (image()[:-40], "PNG, JPEG or WebP"),
        (image("GIF"), "PNG, JPEG or WebP"),
        (b"", "Please choose a file."),
        (bomb(), "PNG, JPEG or WebP"),
        (image(size=(5000, 5000)), "at most 16 megapixels"),
        (image() + b"x" * 512 * 1024, "at most 512 KB"),
    ],
    ids="svg html header half gif empty bomb pixels bytes".split(),
)
def test_what_is_no_small_picture_is_refused(ada, instance, content, complaint):
    page = upload(ada, content, "" if not content else "me.png")
    assert page.status_code == 422
    assert complaint in page.text
    assert not list(instance.glob("avatars/*"))


@pytest.mark.parametrize("name", ["..%2fguestbook.db", "me.html", "nothing.webp"])
def test_nothing_else_is_served(ada, instance, name):
    (instance / "avatars").mkdir()
    (instance / "avatars" / "me.html").write_text("<script>")
    (instance / "guestbook.db").touch()
    assert ada.get(f"/avatars/{name}").status_code == 404


def test_size_is_known_before_anything_is_unpacked(app):
    """The limit is ours, not only Pillow's."""
    with app.app_context(), pytest.raises(ValueError, match="16 megapixels"):
        avatars.encode(FileStorage(BytesIO(image(size=(4097, 4096)))))
