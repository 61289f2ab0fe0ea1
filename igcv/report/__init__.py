"""Pages and drawings from the files of a run; nothing here knows torch. They need the extra "report"."""
