"""What a caller may take: estimates and claims."""
