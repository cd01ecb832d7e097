"""What every service of this system needs, and nothing that only one service needs."""
