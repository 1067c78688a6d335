"""The configuration: its tree, how it is read from files and variables, and the branches of its parts."""
