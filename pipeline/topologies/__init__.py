"""The topologies beside the keys' own: what one source does to many keys, what befalls the fleet, a key's life."""
