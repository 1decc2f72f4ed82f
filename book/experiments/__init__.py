"""The experiments whose results chapter 9 reports: planned, run, resumed and summarized by one command.

    python -m book.experiments status

``book/study_design.md`` is the plan. Finished runs are rows in ``book/experiments/rows``.
"""
