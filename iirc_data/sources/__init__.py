"""Raw datasets: each source yields its images class by class, in the dataset's own order."""

from iirc_data.sources.base import Sample, Source
from iirc_data.sources.folder import FolderSource, TarFolderSource, open_folder

__all__ = ["FolderSource", "Sample", "Source", "TarFolderSource", "open_folder"]
