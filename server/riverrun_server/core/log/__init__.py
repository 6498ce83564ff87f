"""The machine of one partition and its parts."""
