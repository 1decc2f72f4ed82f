"""Figures of the chapters, and what only the build or a chapter or two use."""
