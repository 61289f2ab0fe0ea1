"""HTML reports and block drawings, without torch; they need the extra "report"."""
