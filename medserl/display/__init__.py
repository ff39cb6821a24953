"""What people are shown: the terminal, progress, and text made safe to show."""
