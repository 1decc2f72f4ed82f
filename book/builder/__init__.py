"""What turns the chapters into the book: executed notebooks, MathJax served locally, strict HTML."""
