"""The annotation method in order of the flow: superpixels, prompts, tiles, SAM, exclusion."""
