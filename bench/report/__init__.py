"""How do people see results? A page, or Markdown for a pull request, from files of pytest-benchmark's JSON."""
