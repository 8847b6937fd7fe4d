"""Errors that the user can mend. The command line shows them as one line, without a traceback."""


class InputError(ValueError):
    """Something that was asked for cannot be done; the message says what would work.

    A plain ValueError is a bug in minisd and keeps its traceback.
    """
