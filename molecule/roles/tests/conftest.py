"""Which files of tests `make roles` adds to those of `make test`."""

import os

#: Each applies a role again, which takes a minute or two.
collect_ignore = [] if os.environ.get("FLASKHOST_ROLES_EVERYWHERE") else ["test_hardening_pam.py", "test_undo.py"]
