"""Learning from data: files into arrays, and the training loop. Knows no command line."""
