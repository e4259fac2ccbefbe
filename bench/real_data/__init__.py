"""Where images meet a network: feeding it, training for epochs, finding what bounds it."""
