"""The list of all jobs, in one place; each is a function in a file of its own."""

from __future__ import annotations

from gateway.jobs.alerts.budgets import fire_budget_alerts
from gateway.jobs.alerts.operator import verify_books, watch
from gateway.jobs.holds.give_back import give_back_holds
from gateway.jobs.outbox.send import send_outbox
from gateway.jobs.rate_unpriced import run as rate_unpriced
from gateway.jobs.runner import Job

JOBS: tuple[Job, ...] = (
    Job("send", 5, send_outbox),
    Job("give-back", 15, give_back_holds),
    Job("budget-alerts", 60, fire_budget_alerts),
    Job("watch", 60, watch),
    Job("rate-unpriced", 300, rate_unpriced),
    Job("verify", 86_400, verify_books),
)
