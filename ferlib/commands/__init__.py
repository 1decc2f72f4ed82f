"""One module per subcommand of ``ferlib``: ``add_arguments(parser)``, ``run(options) -> exit
code``.
"""
