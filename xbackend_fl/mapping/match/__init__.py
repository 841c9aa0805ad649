"""Structure proposes: two graphs as cores with labels, their pairing, and what differs where there is none."""
