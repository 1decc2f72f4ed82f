"""What only the build or one chapter draws or words: forest plots, verdicts on claims."""
