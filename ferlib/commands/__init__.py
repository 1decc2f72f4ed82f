"""One module per subcommand of ``ferlib``: SUMMARY, ``add_arguments(parser)``, ``run(options) -> exit
code``.
"""
