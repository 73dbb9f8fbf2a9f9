"""nginx's settings for the files that an app has nginx send, and for apps that must not."""

from __future__ import annotations

import pytest
from nginx_config import nginx, proxied, server, site


@pytest.mark.parametrize("options", [{}, {"uploads": 8}, {"microcache": 1}], ids=str)
def test_an_app_cannot_lead_nginx_anywhere(options: dict[str, int]) -> None:
    """X-Accel-Redirect reaches internal locations, and a line break in it reaches the error log."""
    http = nginx(site(**options))
    places = proxied(http)
    assert len(places) > 2, "the gate is one of them"
    for place in places:
        assert "X-Accel-Redirect" in place.one("proxy_ignore_headers").words
    assert server(http, "shop.test", "443").deep("proxy_ignore_headers")
