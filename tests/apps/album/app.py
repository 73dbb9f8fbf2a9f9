"""An album: visitors upload pictures into the folder uploads, and look at them."""

from pathlib import Path

from flask import Flask, redirect, request, send_from_directory, url_for
from werkzeug.utils import secure_filename

app = Flask(__name__)
app.config["UPLOAD_FOLDER"] = Path(app.root_path) / "uploads"
app.config["UPLOAD_FOLDER"].mkdir(exist_ok=True)


@app.get("/")
def index():
    return {"pictures": sorted(path.name for path in app.config["UPLOAD_FOLDER"].iterdir())}


@app.post("/")
def upload():
    picture = request.files["picture"]
    name = secure_filename(picture.filename)
    picture.save(app.config["UPLOAD_FOLDER"] / name)
    return redirect(url_for("show", name=name))


@app.get("/pictures/<name>")
def show(name):
    return send_from_directory(app.config["UPLOAD_FOLDER"], name)
