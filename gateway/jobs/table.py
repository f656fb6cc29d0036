"""The list of all jobs, in one place; each is a function in a file of its own."""

from __future__ import annotations

from gateway.jobs.runner import Job

JOBS: tuple[Job, ...] = ()
