"""Errors that are the user's to mend. The command line shows them as one line, no traceback."""


class InputError(ValueError):
    """Something that was asked for cannot be done; the message says what would work.

    A plain ValueError is a bug of ours and keeps its traceback.
    """
