"""Two transformer systems for facial expression recognition, whole and readable.

The floors, each importing only from the ones below it::

    cli                                         the `ferlib` command
    widgets  plots  explain  evaluation         looking and measuring
    training                                    the loop, recipes, checkpoints
    models   losses   data                      these three know nothing of each other
"""

__version__ = "0.1.0"
