"""What came of it: the record of a case, stored baselines, the table."""
