"""The version, on the lowest floor, so that whatever writes it into a file need not import the whole package."""

__version__ = "0.2.0.dev0"
