"""The metadata store behind one port."""
