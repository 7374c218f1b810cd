"""The service: what a call means, whichever host brought it and whichever engine stores."""
