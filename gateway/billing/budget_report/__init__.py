"""What budgets have used, for people: summed from SQL, which may be a moment behind the counters that decide."""
