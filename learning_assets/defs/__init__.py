"""Dagster: the assets, the jobs and the processes that run them. Nothing is computed here."""
