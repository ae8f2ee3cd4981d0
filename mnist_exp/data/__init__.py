"""Sources of images: they are read, checked, and identified by a digest, which a signature holds."""
