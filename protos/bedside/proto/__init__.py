"""Generated messages and services; the source is the `.proto` file beside each module."""
