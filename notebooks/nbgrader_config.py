"""For teachers: nbgrader's settings for a course folder. README.md says how to use them."""

from nbconvert.preprocessors import TagRemovePreprocessor
from nbgrader.converters import GenerateAssignment

c = get_config()  # noqa: F821 (nbgrader defines it)

c.ClearSolutions.code_stub = {"python": "# your code here"}

# Cells with the tag "instructor" hold the explanations and the usual mistakes: not for students.
usual = GenerateAssignment.class_traits()["preprocessors"].default()
c.GenerateAssignment.preprocessors = [TagRemovePreprocessor, *usual]
c.TagRemovePreprocessor.enabled = True
c.TagRemovePreprocessor.remove_cell_tags = {"instructor"}

c.ExecutePreprocessor.timeout = 300  # seconds a cell
c.ExecutePreprocessor.iopub_timeout = 60  # seconds for its last output to arrive; usually 4
