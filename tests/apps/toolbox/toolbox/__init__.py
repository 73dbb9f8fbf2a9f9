"""Small tools, found by their entry points: those of this project and those of its plugins."""

from importlib.metadata import entry_points, version

from flask import Flask, abort


def create_app():
    app = Flask(__name__)
    tools = {found.name: found.load() for found in entry_points(group="toolbox.tools")}

    @app.get("/")
    def index():
        return {"version": version("toolbox"), "tools": {name: tool.__doc__ for name, tool in sorted(tools.items())}}

    @app.get("/<name>/<text>")
    def use(name, text):
        if name not in tools:
            abort(404)
        return {"result": tools[name](text)}

    return app
