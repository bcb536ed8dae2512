"""Files in, images out: sources, the image store, tasks, splits, intensities and views."""
