"""Broken and hostile input, killed processes, full disks, long runs: nothing may be lost."""
