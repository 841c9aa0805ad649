"""What travels between a server and silos: messages, what may be asked, updates as they travel, signatures."""
