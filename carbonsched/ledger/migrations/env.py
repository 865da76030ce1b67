"""Alembic's entry: it runs on the transaction `carbonsched.ledger.store.upgrade` has opened, and on nothing else."""

from alembic import context

from carbonsched.ledger.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
