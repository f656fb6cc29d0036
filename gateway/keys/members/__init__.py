"""Members: people and programs that look after an installation, with a role each."""
