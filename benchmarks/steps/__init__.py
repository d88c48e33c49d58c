"""The same training steps three times: ours, torch's and plain numpy's, each in a process of its own."""
