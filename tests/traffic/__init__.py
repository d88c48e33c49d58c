"""A day on a ward, given to a real agent through every kind of source at once, by a clock that is turned."""
