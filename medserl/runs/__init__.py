"""A run on disk: its folder, log, records and checkpoints, and what may change when it goes on."""
