"""The command line: which verbs there are, their options, and where each of them lives.

Nothing here does anything: a verb names a function that is loaded when it is called.
"""
