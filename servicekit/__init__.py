"""What every service of this system needs, and nothing of any one service."""
