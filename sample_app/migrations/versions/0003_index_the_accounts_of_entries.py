"""Check and index the accounts of entries

Both without blocking writers, which needs to be outside of a transaction, and so in a migration of its own: one that
stops half-way is repeated.

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-27 09:35:00
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        op.create_index(op.f("ix_entry_account_id"), "entry", ["account_id"])
        return
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE entry VALIDATE CONSTRAINT fk_entry_account_id_account")
        # An interrupted CREATE INDEX CONCURRENTLY leaves an invalid index behind.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_entry_account_id")
        op.execute("CREATE INDEX CONCURRENTLY ix_entry_account_id ON entry (account_id)")


def downgrade() -> None:
    op.drop_index(op.f("ix_entry_account_id"), "entry")
