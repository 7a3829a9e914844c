"""Data: the official files, the store they are packed into, and the batches that leave it."""
