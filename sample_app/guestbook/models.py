"""The database: accounts, their entries, tokens and exports, and failed logins."""

from datetime import UTC, datetime

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import JSON, CheckConstraint, DateTime, Dialect, ForeignKey, MetaData, String, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

AUTHOR_LENGTH = 80
MESSAGE_LENGTH = 1000
MEMBER, MODERATOR = "member", "moderator"


class Base(DeclarativeBase):
    # Named constraints can be altered by a later migration, on every database.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


db = SQLAlchemy(model_class=Base)


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time, always in UTC: PostgreSQL answers in the session's time zone, SQLite forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def now() -> datetime:
    return datetime.now(UTC)


class Account(db.Model):
    """Somebody who can log in."""

    __tablename__ = "account"
    __table_args__ = (CheckConstraint(f"role IN ('{MEMBER}', '{MODERATOR}')", name="role"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    # In lower case, so that Ada and ada are one.
    name: Mapped[str] = mapped_column(String(30), unique=True)
    password_hash: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(20), server_default=MEMBER)
    # A session names the version that it was made with: a higher one here ends it.
    session_version: Mapped[int] = mapped_column(server_default="1")
    # The name of a file in the avatars' folder.
    avatar: Mapped[str | None] = mapped_column(String(80))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class Entry(db.Model):
    """What one visitor wrote. Entries of guests belong to no account."""

    __tablename__ = "entry"

    id: Mapped[int] = mapped_column(primary_key=True)
    author: Mapped[str] = mapped_column(String(AUTHOR_LENGTH))
    message: Mapped[str] = mapped_column(String(MESSAGE_LENGTH))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    updated_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    account_id: Mapped[int | None] = mapped_column(ForeignKey("account.id", ondelete="SET NULL"), index=True)
    account: Mapped[Account | None] = relationship(lazy="joined")


class Owned:
    """What belongs to an account and goes with it."""

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class ApiToken(Owned, db.Model):
    """A token of the API. Only its digest is kept."""

    __tablename__ = "api_token"

    name: Mapped[str | None] = mapped_column(String(40))
    digest: Mapped[str | None] = mapped_column(String(64), unique=True)
    account: Mapped[Account] = relationship(lazy="joined")


class Export(Owned, db.Model):
    """A request for all entries of an account. The worker writes them; the timer removes them."""

    __tablename__ = "export"

    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    content: Mapped[str | None] = mapped_column(Text)


class Lockout(db.Model):
    """The recent failed logins of one account name, or of one known device of an account."""

    __tablename__ = "lockout"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    # Seconds since 1970, oldest first.
    attempts: Mapped[list[float]] = mapped_column(JSON)
    last_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    locked_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
