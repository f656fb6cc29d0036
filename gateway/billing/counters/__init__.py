"""What SQL knows about the counters of budgets, limits per day and agent runs."""
