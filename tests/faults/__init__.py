"""Fault tests: broken and hostile input, killed processes, full disks, long runs."""
