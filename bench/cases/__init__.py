"""What is asked: a case, its dimensions, its precision, how it is trained, what an IPU is told. Plain data."""
