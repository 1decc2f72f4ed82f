"""What only the build or a chapter or two draw: dark twins, diagrams, forest plots, reliability, verdicts."""
