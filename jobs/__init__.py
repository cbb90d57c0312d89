"""Jobs: what runs to its end and is started by a clock."""
