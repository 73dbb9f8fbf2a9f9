"""The API of the entries, below /api/v1/. Reading is open; writing needs a token."""

from datetime import datetime
from typing import Annotated

from flask import Blueprint, Response, abort, jsonify, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from sqlalchemy import select
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from .errors import problem
from .forms import is_printable
from .limits import API_READS, API_WRITES, limiter
from .models import MESSAGE_LENGTH, Account, Entry, db, now
from .sessions import current_token, may_delete, may_edit, require

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")


def printable(text: str) -> str:
    if not is_printable(text, allowed="\n\t"):
        raise ValueError("contains control characters")
    return text


Message = Annotated[
    str,
    StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=MESSAGE_LENGTH),
    AfterValidator(printable),
]


class EntryIn(BaseModel):
    """A new entry, or the new text of one."""

    model_config = ConfigDict(extra="forbid")
    message: Message


class EntryOut(BaseModel):
    """An entry."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    author: str
    message: str
    created_at: datetime
    updated_at: datetime | None
    account_id: int | None = Field(description="The member who wrote it, or null for a guest.")


class EntryList(BaseModel):
    """Some entries, newest first."""

    items: list[EntryOut]
    next: str | None = Field(description="The path of the entries before these, or null.")


class Fault(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str | None = None
    request_id: str
    errors: list[Fault] | None = None


@blueprint.errorhandler(ValidationError)
def refuse(error: ValidationError) -> Response:
    # Without the input, which can be anything.
    faults = [Fault(field=".".join(map(str, fault["loc"])) or "body", message=fault["msg"]) for fault in error.errors()]
    if any(fault["type"] == "json_invalid" for fault in error.errors()):
        return problem(400, "Bad Request", "The body is not valid JSON.")
    return problem(422, "Unprocessable Content", errors=[fault.model_dump() for fault in faults])


def read_body() -> EntryIn:
    if request.mimetype != "application/json":
        abort(415, "Send the body as application/json.")
    return EntryIn.model_validate_json(request.get_data())


def authenticate() -> Account:
    token = current_token()
    if token is None:
        raise Unauthorized("Send a valid token: Authorization: Bearer ...", www_authenticate=WWWAuthenticate("bearer"))
    return token.account


def conditional(model: BaseModel, status: int = 200) -> Response:
    """Respond with a model and its ETag, or with 304 if the client has it already."""
    response = Response(model.model_dump_json(), status, mimetype="application/json")
    response.add_etag()
    return response.make_conditional(request)


def find_for_change(number: int) -> Entry:
    """Find an entry and lock it, so that If-Match still holds when it is changed."""
    entry = db.session.scalar(select(Entry).where(Entry.id == number).with_for_update(of=Entry))
    return entry or abort(404)


def check_version(entry: Entry) -> None:
    etag = conditional(EntryOut.model_validate(entry)).get_etag()[0]
    if request.if_match and etag not in request.if_match:
        abort(412, "The entry has changed since you read it.")


@blueprint.get("/entries")
@limiter.limit(API_READS)
def list_entries() -> ResponseReturnValue:
    limit = request.args.get("limit", 20, type=int)
    before = request.args.get("before", 2**31 - 1, type=int)
    if not (1 <= limit <= 100 and 1 <= before < 2**31):
        abort(422, "limit is a number from 1 to 100, and before the id of an entry.")
    # By the last one seen, not by OFFSET: no entry is left out if others come or go meanwhile.
    query = select(Entry).where(Entry.id < before).order_by(Entry.id.desc()).limit(limit + 1)
    found = db.session.scalars(query).all()
    items = [EntryOut.model_validate(entry) for entry in found[:limit]]
    more = url_for("api.list_entries", limit=limit, before=items[-1].id) if len(found) > limit else None
    return conditional(EntryList(items=items, next=more))


@blueprint.post("/entries")
@limiter.limit(API_WRITES)
def create_entry() -> ResponseReturnValue:
    account = authenticate()
    entry = Entry(author=account.name, message=read_body().message, account=account)
    db.session.add(entry)
    db.session.commit()
    response = conditional(EntryOut.model_validate(entry), 201)
    response.headers["Location"] = url_for("api.read_entry", number=entry.id)
    return response


@blueprint.get("/entries/<int:number>")
@limiter.limit(API_READS)
def read_entry(number: int) -> ResponseReturnValue:
    return conditional(EntryOut.model_validate(db.get_or_404(Entry, number)))


@blueprint.put("/entries/<int:number>")
@limiter.limit(API_WRITES)
def change_entry(number: int) -> ResponseReturnValue:
    account, entry = authenticate(), find_for_change(number)
    require(may_edit(account, entry))
    check_version(entry)
    entry.message, entry.updated_at = read_body().message, now()
    db.session.commit()
    return conditional(EntryOut.model_validate(entry))


@blueprint.delete("/entries/<int:number>")
@limiter.limit(API_WRITES)
def delete_entry(number: int) -> ResponseReturnValue:
    account, entry = authenticate(), find_for_change(number)
    require(may_delete(account, entry))
    check_version(entry)
    db.session.delete(entry)
    db.session.commit()
    return "", 204


@blueprint.get("/openapi.json")
@limiter.limit(API_READS)
def openapi() -> ResponseReturnValue:
    from .openapi import describe  # noqa: PLC0415 - it needs the models above

    return jsonify(describe())
