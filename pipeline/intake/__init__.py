"""Gateway logs become events, key events and reports of leaks: from HTTP, a topic or files."""
