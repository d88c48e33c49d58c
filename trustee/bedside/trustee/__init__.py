"""The trustee: opens rounds by publishing a round key, ends them by publishing one sum of masks."""
