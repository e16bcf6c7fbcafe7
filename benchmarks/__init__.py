"""Speed and memory of crowdmask, against segment-anything in the same run. See README.md in this folder."""
