"""The command `keywatch`: a file per group of commands, and what these have in common."""
