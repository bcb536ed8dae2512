"""Largest values of a recipe. Above them a recipe is a mistake, which would end as an error of an allocator after a long time."""

LARGEST_SIDE = 16_384  # height and width of an image, in pixels
LARGEST_BATCH = 1_048_576  # images
LARGEST_EPOCHS = 1_000_000.0
LARGEST_COUNT = 10**12  # images or steps
LARGEST_RESAMPLES = 1_000_000  # bootstrap samples
LARGEST_SEED = 2**63 - 1
LARGEST_WAIT_MINUTES = 100_000.0
LARGEST_WORKERS = 1024  # reader processes
