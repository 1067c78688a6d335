"""Where an address is: MMDB files behind one small interface, and how the shipped one is made."""
