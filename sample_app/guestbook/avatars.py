"""Avatars: checked by content and size, encoded again, and served as nothing but an image."""

import secrets
from io import BytesIO
from pathlib import Path

from flask import Blueprint, Response, abort, current_app, flash, redirect, send_from_directory, url_for
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import FileStorage

from .accounts import page
from .forms import AvatarForm, PasswordForm
from .limits import WRITES, limiter
from .models import db
from .sessions import current_account, login_required

blueprint = Blueprint("avatars", __name__)
MOST_BYTES, MOST_PIXELS = 512 * 1024, 4096 * 4096
SIDE = 128


def folder() -> Path:
    """Return the folder: releases share `instance`, and a deploy does not touch it."""
    found = Path(current_app.instance_path, "avatars")
    found.mkdir(parents=True, exist_ok=True)
    return found


def encode(upload: FileStorage) -> bytes:
    """Return an upload as a small WebP without metadata.

    Raises:
        ValueError: It is too large, or not an image.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415 - only a worker that gets an upload needs its memory

    content = upload.stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"Please use an image of at most {MOST_BYTES // 1024} KB.")
    try:
        # The content decides, not the name; and the size is known before anything is unpacked.
        with Image.open(BytesIO(content), formats=["PNG", "JPEG", "WEBP"]) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError("Please use an image of at most 16 megapixels.")
            small = ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (SIDE, SIDE))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("Please use a PNG, JPEG or WebP image.") from error
    encoded = BytesIO()
    small.save(encoded, "WEBP")
    return encoded.getvalue()


@blueprint.post("/account/avatar")
@limiter.limit(WRITES)
@login_required
def upload() -> ResponseReturnValue:
    account, form = current_account(), AvatarForm()
    if form.validate():
        try:
            content = encode(form.image.data)
        except ValueError as error:
            form.image.errors = [str(error)]
    if form.errors:
        return page(PasswordForm(), avatar_form=form), 422
    former, name = account.avatar, f"{account.id}-{secrets.token_hex(8)}.webp"
    (folder() / name).write_bytes(content)
    account.avatar = name
    db.session.commit()
    if former:
        (folder() / former).unlink(missing_ok=True)
    flash("Your picture is changed.", "success")
    return redirect(url_for("accounts.show"), 303)


@blueprint.get("/avatars/<name>")
def show(name: str) -> Response:
    if not name.endswith(".webp"):
        abort(404)
    response = send_from_directory(folder(), name, mimetype="image/webp")
    # Another picture has another name.
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response
