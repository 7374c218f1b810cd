"""What a public community needs: a beacon, and a publisher of capsules with its keys."""
