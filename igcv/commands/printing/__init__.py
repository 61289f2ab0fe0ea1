"""What the commands print: tables and lines, from plain figures."""
