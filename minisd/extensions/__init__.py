"""What stands on the pipeline. Each file is one idea, whole: what it learns, and how.

`python -m minisd extend NAME` trains one of them. The core imports none, none imports another, and
each can be deleted with its tests. A file has RECIPE, and extend(run, pipe), which trains and
returns a pipeline of the same file format.
"""
