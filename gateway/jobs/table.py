"""The list of all jobs, in one place; each is a function in a file of its own."""

from __future__ import annotations

from gateway.jobs.holds.give_back import give_back_holds
from gateway.jobs.runner import Job

JOBS: tuple[Job, ...] = (Job("give-back", 10, give_back_holds),)
