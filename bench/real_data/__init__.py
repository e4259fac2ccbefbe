"""Networks on real images: feeding, training for epochs, and finding the bottleneck."""
