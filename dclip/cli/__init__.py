"""The command line: parse, build a config, call a stage, show the result. No logic.

Nothing outside this package knows Typer, and nothing in it is imported by the layers below. Heavy
libraries are imported inside the commands, so that ``dclip --help`` stays instant.
"""
