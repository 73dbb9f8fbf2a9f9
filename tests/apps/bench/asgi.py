"""BENCHMARK APP ONLY (benchmarks/serve): the pages of app.py from an ASGI app."""

import asyncio
import os

from page import QUERY, ROWS, SECONDS, template
from quart import Quart
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

app = Quart(__name__)
engine = create_async_engine(os.environ["SQLALCHEMY_DATABASE_URI"])


@app.get("/")
@app.get("/page")
async def page() -> str:
    return template.render(title="A page", rows=ROWS)


@app.get("/query")
async def query() -> str:
    async with engine.connect() as connection:
        rows = (await connection.execute(text(QUERY))).all()
    return template.render(title="A page with a query", rows=rows)


@app.get("/wait")
async def wait() -> str:
    await asyncio.sleep(SECONDS)
    return "waited\n"
