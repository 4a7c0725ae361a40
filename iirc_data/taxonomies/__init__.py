"""Taxonomies from files: JSON, tables, trees of folders and WordNet."""
