"""A silo: its model and data, its outbox, and the socket that other processes of its machine reach it by."""
