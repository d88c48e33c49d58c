"""Who belongs to the federation: tokens, requests, rosters, certificates, and who is calling."""
