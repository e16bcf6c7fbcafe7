"""Writers of tiny data sets in the layouts that crowdmask reads; they return the truth."""
