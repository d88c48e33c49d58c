"""The local API on a unix socket: status and predictions, for the command line and for bedside displays."""
