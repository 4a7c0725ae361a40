"""Frozen features: computed once per dataset and network, kept in the cache, read as samples."""
