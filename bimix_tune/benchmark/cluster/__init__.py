"""How a search copes with a cluster: its speed, and what goes wrong there."""
