"""Other libraries, each in a file, made ready to solve what this one solves. They come with `dyn-bench[peers]`."""
