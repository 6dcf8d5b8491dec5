"""What kernels and networks cost on a device: keys, the SQLite store, and the predictor fitted to it."""
