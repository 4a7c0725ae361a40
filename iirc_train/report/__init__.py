"""Turns run folders into tables and figures."""
