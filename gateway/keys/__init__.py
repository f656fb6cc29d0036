"""Who asks and what they may take: keys, their owners' budgets and limits, members and their roles."""
