"""Jobs: what is done without anybody asking for it, in one process per installation at a time."""
