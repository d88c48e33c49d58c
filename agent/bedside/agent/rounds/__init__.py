"""The device's side of a round: judge the offer, contribute once, upload the same bytes until they arrived."""
