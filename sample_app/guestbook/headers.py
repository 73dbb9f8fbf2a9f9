"""Security headers of every response. nginx adds its own only where the app has sent none."""

from flask import Flask, Response, g

# No script at all, and nothing from elsewhere. A page that needs a script adds script-src 'self' and a file.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # CSRFProtect compares the Referer of forms, so pages of this site must send it.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def init_app(app: Flask) -> None:
    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if g.get("account_id"):
            # What an account sees is for no cache between, and not for the next person at this computer.
            response.headers.setdefault("Cache-Control", "private, no-store")
        if release := app.config["RELEASE"]:
            response.headers["X-Release"] = release
        return response
