"""Add accounts, and let entries belong to them

An expansion: the running release neither knows the new tables nor sets the new columns, which may all be empty.

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-27 09:30:00
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=30), nullable=False),
        sa.Column("password_hash", sa.String(length=200), nullable=False),
        sa.Column("is_moderator", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("session_version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("avatar", sa.String(length=80)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
        sa.UniqueConstraint("name", name=op.f("uq_account_name")),
    )
    op.create_table(
        "lockout",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("attempts", sa.JSON(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True)),
        sa.Column("locked_until", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_lockout")),
    )
    for table, columns in {
        "api_token": [sa.Column("name", sa.String(length=40)), sa.Column("digest", sa.String(length=64), unique=True)],
        "export": [sa.Column("finished_at", sa.DateTime(timezone=True)), sa.Column("content", sa.Text())],
    }.items():
        op.create_table(
            table,
            sa.Column("id", sa.Integer(), nullable=False),
            sa.Column("account_id", sa.Integer(), nullable=False),
            sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
            *columns,
            sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
            sa.ForeignKeyConstraint(
                ["account_id"], ["account.id"], name=op.f(f"fk_{table}_account_id_account"), ondelete="CASCADE"
            ),
        )
        op.create_index(op.f(f"ix_{table}_account_id"), table, ["account_id"])
    # A batch copies the table on SQLite, which cannot add a constraint otherwise. PostgreSQL gets plain ALTER TABLE,
    # and with NOT VALID it does not read all rows while it holds the lock.
    with op.batch_alter_table("entry") as batch:
        batch.add_column(sa.Column("updated_at", sa.DateTime(timezone=True)))
        batch.add_column(sa.Column("account_id", sa.Integer()))
        batch.create_foreign_key(
            op.f("fk_entry_account_id_account"), "account", ["account_id"], ["id"],
            ondelete="SET NULL", postgresql_not_valid=True,
        )  # fmt: skip


def downgrade() -> None:
    with op.batch_alter_table("entry") as batch:
        batch.drop_constraint(op.f("fk_entry_account_id_account"), type_="foreignkey")
        batch.drop_column("account_id")
        batch.drop_column("updated_at")
    for table in ("export", "api_token", "lockout", "account"):
        op.drop_table(table)
