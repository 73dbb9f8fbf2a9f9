"""The jobs: one for RQ and one for Celery."""

import os
import time

from celery import Celery

celery = Celery("jobs", broker=os.environ.get("CELERY_BROKER_URL"), backend=os.environ.get("CELERY_RESULT_BACKEND"))


def shout(word, seconds=0.0):
    time.sleep(seconds)
    return word.upper()


@celery.task
def whisper(word):
    return word.lower()
