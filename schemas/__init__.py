"""What goes over the wires: events, keys, incidents, responses, rows; types first, JSON Schema generated."""
