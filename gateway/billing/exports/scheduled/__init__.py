"""Scheduled exports: what is due, its runs in SQL, and how files get to a folder or a bucket."""
