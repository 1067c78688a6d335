"""How good the detection is, measured: `keywatch evaluate nab` and `keywatch evaluate keybench`."""
