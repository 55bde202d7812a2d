"""Templates as Docker's users write them: the part of Go's text/template that prints values."""

from woodlot.cli.gotemplate.nodes import TemplateError
from woodlot.cli.gotemplate.parse import Template, parse

__all__ = ["Template", "TemplateError", "parse"]
