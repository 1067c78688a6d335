"""What `keywatch bench` measures: the ceiling, the whole worker, a plain Faust agent, and the core's steps."""
