"""What a round needs besides the game: its batch, gold pairs, auxiliary losses, figures and clock."""
