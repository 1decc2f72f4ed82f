"""The experiments and measurements behind the book's records, each a module with a command.

    python -m book.experiments status            # the planned experiments of chapter 9: plan, run, summarize
    python -m book.experiments.evaluation --help  # every other record says in ``command`` how it is made

``book/study_design.md`` is the plan. Finished runs are rows in ``book/experiments/rows``.
"""
