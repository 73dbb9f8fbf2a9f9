"""flaskhost-backup: backups of the database and the files of this host, and restores.

* :mod:`cli`: the command line;
* the verbs: :mod:`backup` (full, diff, files), :mod:`second_copy` (copy, adopt), :mod:`check`, :mod:`status`,
  :mod:`list_backups`, :mod:`prepare`, :mod:`point`, :mod:`drill`, :mod:`forget`, :mod:`unlock`;
* restores: ``restore_*``; :mod:`sources` and :mod:`targets` select the repository and the point in time;
* :mod:`pgbackrest`, :mod:`restic`, :mod:`cluster`, :mod:`sessions`, :mod:`tools`, :mod:`units`: other programs;
* :mod:`config`, :mod:`state`, :mod:`result`, :mod:`hook`, :mod:`paths`: input, memory, output, notifications, and
  changes of files.

The role backup installs the modules of this folder, without subfolders, and the modules of
``plugins/module_utils/flaskhost/host`` that they import.
"""
