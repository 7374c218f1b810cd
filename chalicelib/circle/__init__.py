"""What a circle does through the service: presence, mail, relay and sockets."""
