"""Uses a cache, rate limits, sessions and two kinds of job queues, each by the library that most apps use for it."""

import os
import time

import jobs
from flask import Flask, request, session
from flask_caching import Cache
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_session import Session
from redis import Redis
from rq import Queue

app = Flask(__name__)
if "MEMCACHED_SERVERS" in os.environ:
    app.config.update(CACHE_TYPE="MemcachedCache", CACHE_MEMCACHED_SERVERS=[os.environ["MEMCACHED_SERVERS"]])
else:
    app.config.update(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=os.environ["CACHE_REDIS_URL"])
# A cache that does not respond costs nothing but time: Flask-Caching calls the function, and Flask-Limiter lets pass.
cache = Cache(app)
limiter = Limiter(get_remote_address, app=app, storage_uri=os.environ["RATELIMIT_STORAGE_URI"], swallow_errors=True)
queue = None
if "RQ_REDIS_URL" in os.environ:
    redis = Redis.from_url(os.environ["REDIS_URL"])
    queue = Queue(connection=Redis.from_url(os.environ["RQ_REDIS_URL"]))
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=redis)
    Session(app)


@app.get("/")
def index():
    return {"status": "ok"}


@app.get("/cached")
@cache.cached(timeout=60)
def cached():
    """Return the time at which the page was computed: twice the same if the cache works."""
    return {"computed": time.time()}


@app.post("/clear")
def clear():
    return {"cleared": cache.clear()}


@app.get("/limited")
@limiter.limit("2 per minute")
def limited():
    return {"status": "ok"}


@app.get("/visits")
def visits():
    session["visits"] = session.get("visits", 0) + 1
    return {"visits": session["visits"]}


@app.post("/rq/<word>")
def enqueue(word):
    return {"job": queue.enqueue(jobs.shout, word, float(request.args.get("seconds", 0)), result_ttl=3600).id}


@app.get("/rq/<job>")
def result(job):
    found = queue.fetch_job(job)
    return {"result": found.return_value() if found else None}


@app.get("/rq")
def waiting():
    return {"waiting": len(queue)}


@app.post("/celery/<word>")
def delay(word):
    return {"job": jobs.whisper.delay(word).id}


@app.get("/celery/<job>")
def fetched(job):
    found = jobs.celery.AsyncResult(job)
    return {"result": found.result if found.successful() else None}
