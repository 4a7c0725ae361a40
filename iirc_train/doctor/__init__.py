"""What ``iirc doctor`` finds out about this machine. Nothing here is part of a run.

Every module gathers findings, and imports torch and other large packages only while it does, so
that a broken installation becomes a finding instead of a stack trace.
"""

from iirc_train.doctor.examination import examine
from iirc_train.doctor.finding import Finding

__all__ = ["Finding", "examine"]
