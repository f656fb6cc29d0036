"""The list of all jobs, in one place; each is a function in a file of its own."""

from __future__ import annotations

from gateway.jobs.alerts.budgets import fire_budget_alerts
from gateway.jobs.alerts.operator import verify_books, watch
from gateway.jobs.alerts.watched import JOB as BUDGET_ALERTS
from gateway.jobs.exports import run_exports
from gateway.jobs.holds.give_back import give_back_holds
from gateway.jobs.labels import tend_labels
from gateway.jobs.outbox.send import send_outbox
from gateway.jobs.rate_unpriced import run as rate_unpriced
from gateway.jobs.router.challengers import judge_artifacts
from gateway.jobs.router.drift import watch_drift
from gateway.jobs.router.recalibrate import recalibrate_artifacts
from gateway.jobs.runner import Job
from gateway.jobs.storage import apply_retention, open_partitions, remove_old_holds

JOBS: tuple[Job, ...] = (
    Job("send", 5, send_outbox),
    Job("give-back", 15, give_back_holds),
    Job(BUDGET_ALERTS, 60, fire_budget_alerts),
    Job("watch", 60, watch),
    Job("exports", 60, run_exports),
    Job("rate-unpriced", 300, rate_unpriced),
    Job("challengers", 600, judge_artifacts),
    Job("router-drift", 3_600, watch_drift),
    Job("recalibrate", 86_400, recalibrate_artifacts),
    Job("labels", 15, tend_labels),
    Job("verify", 86_400, verify_books),
    Job("partitions", 3_600, open_partitions),
    Job("retention", 86_400, apply_retention),
    Job("holds", 86_400, remove_old_holds),
)
