"""Audio: finding files, decoding, resampling, windows, log-mel spectrograms, threaded loading."""
