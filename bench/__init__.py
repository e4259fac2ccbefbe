"""What is measured and how. Nothing here knows pytest, except the test_*.py files."""
