"""One mechanism for frames of any size: windows, halos, who owns what, and how results are merged."""
