"""What was served before its price was known: found, and rated once there is one."""
