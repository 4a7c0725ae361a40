"""From a run's folder to tables and figures."""
