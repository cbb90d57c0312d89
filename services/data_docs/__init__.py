"""Great Expectations' Data Docs over HTTP, read from the lake."""
