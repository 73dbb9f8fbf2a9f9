"""The program flaskhost-backup: pgBackRest and restic do the work; this calls them, keeps records, explains."""
