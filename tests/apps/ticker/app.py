"""A page that shows the time as it comes: server-sent events, one every half second."""

import time

from flask import Flask, Response

app = Flask(__name__)

PAGE = """<!doctype html>
<title>Ticker</title>
<ol></ol>
<script>
  new EventSource("/events").onmessage = (event) => {
    const line = document.createElement("li");
    line.textContent = event.data;
    document.querySelector("ol").append(line);
  };
</script>
"""


@app.get("/")
def index():
    return PAGE


@app.get("/events")
def events():
    def ticks():
        for number in range(8):
            yield f"id: {number}\ndata: {time.time()}\n\n"
            time.sleep(0.5)

    return Response(ticks(), mimetype="text/event-stream", headers={"Cache-Control": "no-cache"})
