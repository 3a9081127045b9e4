"""The proofs: gradient checks, isolation four ways, influence, and the random cases they use."""
