"""Weight files of every format: what reads them, what writes them."""
