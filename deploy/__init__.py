"""How Penstock's engines are run on more than one machine or GPU."""
