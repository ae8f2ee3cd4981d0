"""Read and check images, and identify them by a digest for signatures."""
